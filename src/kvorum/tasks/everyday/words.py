"""The words that everyday tasks are made of; all names and firms are made up."""

from __future__ import annotations

FIRST = ("Marta", "Omar", "Ingrid", "Paulo", "Yuki", "Lucia", "Samuel", "Nora", "Tomas", "Aisha", "Victor", "Helene")
LAST = ("Lindholm", "Okeke", "Solheim", "Devaux", "Tamura", "Romano", "Adeleke", "Fitzroy", "Kaminski", "Osman")
TOWNS = (
    "Ashby",
    "Birkwood",
    "Caldon",
    "Dunmere",
    "Eastham",
    "Fenby",
    "Glenmore",
    "Harlow Vale",
    "Ivydale",
    "Kirkside",
    "Lowick",
    "Marsden Hill",
    "Netherby",
    "Oakhurst",
    "Penrow",
    "Quarley",
    "Redmire",
    "Stanway",
    "Thornby",
    "Upwell",
    "Wexcombe",
    "Yarrow",
)
FIRMS = ("Nordwell AS", "Brightpath Ltd", "Osterhof GmbH", "Calder & Sons", "Vela Systems", "Pinegrove Inc")
GOODS = ("desk lamp", "office chair", "paper shredder", "label printer", "water filter", "tool box", "wall clock")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FRUIT = ("apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach", "pear", "plum", "quince", "fig")
SPANISH = {
    "dog": "perro",
    "house": "casa",
    "water": "agua",
    "book": "libro",
    "red": "rojo",
    "bread": "pan",
    "night": "noche",
    "friend": "amigo",
    "school": "escuela",
    "milk": "leche",
    "city": "ciudad",
    "cat": "gato",
}
GERMAN = {
    "Monday": "Montag",
    "Tuesday": "Dienstag",
    "Wednesday": "Mittwoch",
    "Thursday": "Donnerstag",
    "Friday": "Freitag",
    "Saturday": "Samstag",
    "Sunday": "Sonntag",
}
PRAISE = (
    "Works perfectly and arrived a day early.",
    "I love it, best purchase of the year.",
    "Great quality, I would buy it again at once.",
    "My whole family is delighted with it.",
    "Easy to set up, quiet, and it looks wonderful.",
    "Excellent value, it does exactly what it promises.",
)
BLAME = (
    "Broke after two days and nobody answers my mails.",
    "A waste of money, I sent it back.",
    "Terrible smell, and the lid does not close.",
    "Much too loud, I regret buying it.",
    "The worst support that I have ever met.",
    "It never worked and the refund took months.",
)
SPAM = (
    "You have WON a prize of 5,000! Click here now to claim it.",
    "Cheap pills without prescription, order today, 90 percent off!!!",
    "Dear customer, your account is locked. Send us your password to open it.",
    "Earn 900 a day from home, no work needed, reply with your bank details.",
)
HAM = (
    "Hi, the meeting on Thursday moves to 3 pm, same room.",
    "Could you send me the slides of yesterday's talk? Thanks, Nora",
    "The plumber comes tomorrow between 9 and 11, please let him in.",
    "Attached are the minutes; tell me if I forgot something.",
)
HEADLINES = {
    "sport": ("Late goal sends the Rovers into the final", "Sprinter breaks the 200 metres record"),
    "politics": ("Parliament passes the new election law", "Minister resigns after the vote on the budget"),
    "weather": ("Heavy snow expected in the north tonight", "Heat wave: 38 degrees forecast for Sunday"),
    "technology": ("New phone folds twice and lasts two days", "Chip maker presents a processor of 2 nanometres"),
}

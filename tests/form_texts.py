"""Texts with forms and right values, all made up: an order letter, an invoice with commas before decimals, a note."""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
NUMBER: dict[str, Any] = {"type": "number"}
TRUTH: dict[str, Any] = {"type": "boolean"}


def may_be_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


ORDER = """From: Benedikt Aalto <b.aalto@stonebridge-dairy.example>
To: Sales office, Velling Cooling A/S
Subject: Our order for the cheese store, with everything that we settled by telephone

Dear Ms Velling,

many thanks for your patience on Thursday. I promised to put all of it into one letter, so that both houses work from
the same paper, and here it is. It has become longer than I meant it to be, because I would rather say a thing twice
than have the fitters stand in an empty hall again, as happened to us two years ago with the supplier of the conveyor.

Let me begin with ourselves, since your new colleague asked. Stonebridge Dairy Cooperative was founded in 1934 by
eleven farms along the Orne; today there are 83 members. We make hard cheese and butter at the site in Kallby. The old
store, built in 1978, holds 9,000 wheels, and it is the cooling of this store that has come to its end: the
compressors leak, the refrigerant may no longer be refilled, and the last summer cost us nearly 400 wheels.

In your first offer you had proposed the unit FR-90. After the measurements in June it is clear that this one is too
weak, since the sun stands on the south wall until the evening. We therefore order the stronger unit FR-120, and
please in the painted version, colour light grey, not in bare aluminium, which the cleaning agents attack. We need 6
units: five for the store and one for the ripening room. In your offer of May there were still 8 units; the two for
the butter room are no longer needed, since that room will be moved into the new building.

You quoted 7,350 euros for one unit. On the whole sum you grant us 5 percent, because we pay for the crane ourselves.
My predecessor spoke of 7 percent in his note, but that was for an order together with the butter room, and so it no
longer holds. With the discount and before tax I arrive at 41,895 euros. Should you arrive at another figure, let me
know before you write the confirmation, not afterwards.

Our number for this order is SD-2291-K. It must stand on the delivery note and on the invoice. The number SD-2187-K,
which you see on the enquiry, was closed when we changed the model, and whatever comes under it will be sent back by
the gate.

The units are to come on 14 March. Before the 10th the floor will still be wet, and from the 17th on the crane is
booked by somebody else, so that there is little room on either side. Please deliver to 5 Quarry Lane, Kallby, and not
to the head office in Sundvik, where there is no ramp. The lorry has to come in from the north, for the underpass on
the south side is only 3.4 metres high. The yard opens at 7:00.

We pay within 21 days after the invoice; your usual 14 are too few for us, since every payment above 20,000 euros goes
to the board, which meets on alternate Mondays. The warranty is 60 months on the compressors and 24 months on
everything else, counted from the day on which the units are started, not from the delivery. Your fitters bring their
own tools; we give them power, water and a hot meal.

The noise is a matter on which our neighbours watch us closely. You have assured us that a unit stays under 52
decibels at ten metres. The town allows 55 by day and 45 at night, and so the control must run the fans slower between
22:00 and 6:00. Please see to it that this is set before the first night and write it into the handover record.

For technical questions ask for Johanna Brask, who runs our maintenance; you reach her under 0480 771 209. For
questions of money ask for me. I shall be travelling from 2 to 9 February and read no letters in that week, so I would
be glad to hold your confirmation in my hands before.

With kind regards from Kallby,
Benedikt Aalto
Head of purchasing, Stonebridge Dairy Cooperative
"""

INVOICE = """Pappershuset Norrgatan AB
Norrgatan 12, 753 21 Uppsala

FAKTURA
Fakturanummer: 20418-7
Fakturadatum: 20260304
Kund: Ekdungens Skola
Er referens: Lotta Hedman

Artikel                      Antal   Pris      Summa
Ritpapper A3                   25    6,75     168,75
Vattenfärg, låda               10   41,20     412,00
Penslar, set                   10   18,50     185,00

Summa exkl. moms                             765,75
Moms 25 %                                    191,44
Att betala                                   957,19

Vikt: 18,5 kg
Betalningsvillkor: 30 dagar netto
Bankgiro: 5512-0937
"""

NOTE = """Hi all,

short note on the flat in Linden Street, since I will be away next week and somebody must take the calls.

The flat is on the third floor, has two and a half rooms, 61.5 square metres and a balcony to the yard. There is no
lift. The rent is 940 euros cold, plus 180 for heating and water. The deposit is two months' rent. It is free from the
first of May. Pets: cats are fine, dogs are not, the owner had trouble with the last one. The kitchen was put in new
in 2022 and stays in the flat. The key to the cellar has the code null-7 on its tag, please do not lose it, there is
only one.

The owner is Mr. Petrosyan; he wants to see everyone himself before anything is signed. He can be reached in the
mornings only. So far eleven people have asked, of whom four came to look at it on Saturday.

Thanks and see you on the 20th,
Mira
"""

FORMS: dict[str, tuple[str, dict[str, tuple[dict[str, Any], Any]]]] = {
    "order": (
        ORDER,
        {
            "customer": ({**TEXT, "description": "the company that orders"}, "Stonebridge Dairy Cooperative"),
            "order_number": ({**TEXT, "description": "the customer's number of this order"}, "SD-2291-K"),
            "model": ({**TEXT, "description": "the model that is ordered"}, "FR-120"),
            "colour": ({**TEXT, "description": "the colour of the units"}, "light grey"),
            "quantity": ({**WHOLE, "description": "how many units are ordered"}, 6),
            "unit_price": ({**NUMBER, "description": "price of one unit in euros"}, 7350),
            "discount": ({**NUMBER, "description": "the discount that was agreed, in percent"}, 5),
            "total": ({**NUMBER, "description": "total after the discount, in euros"}, 41895),
            "delivery_date": ({**TEXT, "description": "the day on which the units shall come"}, "14 March"),
            "delivery_address": ({**TEXT, "description": "the address for the delivery"}, "5 Quarry Lane, Kallby"),
            "payment_days": ({**WHOLE, "description": "days after the invoice until payment"}, 21),
            "engineer_phone": (
                {**TEXT, "description": "the telephone number for technical questions"},
                "0480 771 209",
            ),
        },
    ),
    "invoice": (
        INVOICE,
        {
            "number": ({**TEXT, "description": "invoice number"}, "20418-7"),
            "date": ({"type": "string", "format": "date", "description": "date of the invoice"}, "2026-03-04"),
            "customer": ({**TEXT, "description": "the customer"}, "Ekdungens Skola"),
            "net": ({**NUMBER, "description": "sum without tax"}, 765.75),
            "tax_percent": ({**NUMBER, "description": "rate of the tax in percent"}, 25),
            "total": ({**NUMBER, "description": "amount to be paid"}, 957.19),
            "paper_price": ({**NUMBER, "description": "price of one piece of drawing paper (Ritpapper)"}, 6.75),
            "paint_price": ({**NUMBER, "description": "price of one box of water colours (Vattenfärg)"}, 41.2),
            "weight_kg": ({**may_be_null(WHOLE), "description": "weight in kilograms"}, None),
            "days": ({**WHOLE, "description": "days until payment"}, 30),
            "iban": ({**may_be_null(TEXT), "description": "IBAN of the seller"}, None),
            "currency_rate": ({**may_be_null(NUMBER), "description": "exchange rate to the euro"}, None),
        },
    ),
    "note": (
        NOTE,
        {
            "street": ({**TEXT, "description": "the street of the flat"}, "Linden Street"),
            "floor": ({**WHOLE, "description": "number of the floor"}, 3),
            "area": ({**NUMBER, "description": "area in square metres"}, 61.5),
            "rent": ({**NUMBER, "description": "rent a month in euros, without heating"}, 940),
            "heating": ({**NUMBER, "description": "heating and water a month, in euros"}, 180),
            "lift": ({**TRUTH, "description": "whether there is a lift"}, False),
            "dogs": ({**TRUTH, "description": "whether dogs are allowed"}, False),
            "balcony": ({**TRUTH, "description": "whether there is a balcony"}, True),
            "free_from": ({**TEXT, "description": "the day from which it is free"}, "first of May"),
            "key_code": ({**may_be_null(TEXT), "description": "code on the tag of the cellar key"}, "null-7"),
            "owner": ({**TEXT, "description": "name of the owner"}, "Petrosyan"),
            "owner_phone": ({**may_be_null(TEXT), "description": "telephone number of the owner"}, None),
            "built": ({**may_be_null(WHOLE), "description": "year in which the house was built"}, None),
            "parking": ({**may_be_null(TEXT), "description": "the parking place that belongs to the flat"}, None),
            "viewers": ({**WHOLE, "description": "how many people came to look at it on Saturday"}, 4),
        },
    ),
}
"""By name: the text, and of each field its schema and what is right."""


def schema_of(name: str) -> dict[str, Any]:
    """The form of a text, in which all fields must be there."""
    fields = FORMS[name][1]
    return {"type": "object", "properties": {key: one for key, (one, _) in fields.items()}, "required": list(fields)}


def wrong(name: str, value: Any) -> dict[str, Any]:
    """What of a filled form is not right; of a text it is enough that the right one is in it."""
    found = {}
    for key, (_, right) in FORMS[name][1].items():
        given = value.get(key)
        same = right.lower() in given.lower() if isinstance(right, str) and isinstance(given, str) else given == right
        if not same:
            found[key] = given
    return found

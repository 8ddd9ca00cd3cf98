#!/usr/bin/env bash
# curl: a call of a tool and its result, a reply in a form, a streamed answer.
set -euo pipefail
url=$1 name=$2

send() { # ROUTE BODY: the reply, on one line
  curl -sS --fail-with-body "$url/$1" -H 'Content-Type: application/json' -d "$2"
}
holds() { # TEXT PATTERN
  grep -qE "$2" <<<"$1" || { echo "there is no $2 in: $1" >&2; exit 1; }
}

count() {
  curl "$url/chat/completions" -H 'Content-Type: application/json' -d '{
    "model": "'"$name"'", "max_tokens": 40, "stream": true, "seed": 1,
    "messages": [{"role": "user", "content": "Count from one to five in words."}]}'
}
count > stream.txt
holds "$(tail -n 2 stream.txt)" 'data: \[DONE\]'
test "$(grep -c '"content":' stream.txt)" -gt 3

question='{"role": "user", "content": "What do tea and cake cost together? Look each price up first."}'
tools='[{"type": "function", "function": {"name": "price", "description": "The price of something",
  "parameters": {"type": "object", "properties": {"thing": {"enum": ["tea", "cake"]}}, "required": ["thing"]}}}]'
messages=$question
for cost in 3 4; do
  reply=$(send chat/completions '{"model": "'"$name"'", "messages": ['"$messages"'], "tools": '"$tools"',
    "tool_choice": {"type": "function", "function": {"name": "price"}}, "temperature": 0, "max_tokens": 200}')
  id=$(grep -oE '"id": ?"call_[^"]+"' <<<"$reply" | grep -oE 'call_[^"]+')
  thing=$(grep -oE 'thing[\\": ]+(tea|cake)' <<<"$reply" | grep -oE '(tea|cake)$')
  messages=$messages',{"role": "assistant", "content": null, "tool_calls": [{"id": "'$id'", "type": "function",
    "function": {"name": "price", "arguments": "{\"thing\": \"'$thing'\"}"}}]},
    {"role": "tool", "tool_call_id": "'$id'", "content": "'$cost'"}'
done
reply=$(send chat/completions '{"model": "'"$name"'", "messages": ['"$messages"'], "tools": '"$tools"',
  "tool_choice": "none", "temperature": 0, "max_tokens": 60}')
holds "$reply" '"content": ?"[^"]+"'
holds "$reply" '"cached_tokens": ?[1-9]'

schema='{"type": "object", "properties": {"name": {"type": "string", "maxLength": 20},
  "km": {"type": "integer", "minimum": 0, "maximum": 9999}}, "required": ["name", "km"], "additionalProperties": false}'
reply=$(send chat/completions '{"model": "'"$name"'", "temperature": 0, "max_tokens": 200,
  "messages": [{"role": "user", "content": "A river in France and its length in km."}],
  "response_format": {"type": "json_schema", "json_schema": {"name": "river", "schema": '"$schema"'}}}')
holds "$reply" '\\"name\\": ?\\".*\\"km\\": ?-?[0-9]+'
echo "ok: $reply"

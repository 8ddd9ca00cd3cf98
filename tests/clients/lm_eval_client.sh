#!/usr/bin/env bash
# lm-eval: log-likelihoods of choices by completions, its tokens counted by the server, and answers by chat completions.
set -euo pipefail
url=$1 name=$2
export OPENAI_API_KEY=none HF_DATASETS_OFFLINE=1 HF_HUB_OFFLINE=1

mkdir tasks
cat > tasks/data.jsonl <<'DATA'
{"question": "The capital of France is", "choices": [" Paris", " blue"], "gold": 0}
{"question": "Two and two are", "choices": [" carrots", " four"], "gold": 1}
{"question": "Monday, Tuesday,", "choices": [" Wednesday", " potato"], "gold": 0}
DATA
cat > tasks/choices.yaml <<DATA
task: choices
dataset_path: json
dataset_kwargs: {data_files: {test: $PWD/tasks/data.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
target_delimiter: ""
metric_list: [{metric: acc}]
DATA
cat > tasks/sayings.yaml <<DATA
task: sayings
dataset_path: json
dataset_kwargs: {data_files: {test: $PWD/tasks/data.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[gold]}}"
generation_kwargs: {until: ["QQ"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
DATA

lm_eval --model local-completions --tasks choices --include_path tasks --output_path out/choices --log_samples \
  --model_args model=$name,base_url=$url/completions,tokenizer_backend=remote,num_concurrent=4,max_length=2048
lm_eval --model local-chat-completions --apply_chat_template --tasks sayings --include_path tasks --output_path out/sayings \
  --log_samples --model_args model=$name,base_url=$url/chat/completions,num_concurrent=2

python - <<'PYTHON'
import json
from pathlib import Path

(found,) = Path("out/choices").rglob("results_*.json")
results = json.loads(found.read_text())["results"]["choices"]
assert results["acc,none"] == 1, results
(samples,) = Path("out/sayings").rglob("samples_*.jsonl")
said = [json.loads(line)["resps"][0][0] for line in samples.read_text().splitlines()]
assert len(said) == 3 and all(said), said
print("ok:", results["acc,none"], said)
PYTHON

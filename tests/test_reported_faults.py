"""Which test holds each row of a list of faults that users reported of other systems (grammars, tools, memories).

The rows are faults reported in public of grammars while decoding (P1 to P20), tool calls (to P39), the Responses and
Messages APIs (to P54), MCP (to P69), skills and memories (to P82), questions about documents (to P99), and vLLM's
workers, replicas under Ray and runs in PostgreSQL (to P116), whose tests `make test-vllm`, `test-ray` and
`test-postgres` run. A row has the tests with its right value, or says why it cannot arise here.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
G, S, R, F, T = "grammars", "grammar_schemas", "call_reader", "call_form", "serve_tools"
SK, MEM, STORE = "skills", "memory", "memory_store"
RESP, MSG, CLI, MCP, DEC = "serve_responses", "serve_messages", "mcp_client", "serve_mcp", "serve_decisions"
HELD: dict[str, str] = {
    "P1": f"{G}::test_a_free_row_is_as_if_alone",
    "P2": f"{G}::test_a_row_with_a_grammar_and_no_mask_is_an_error_of_that_row",
    "P3": f"{G}::test_ids_past_the_tokenizer_are_never_picked",
    "P4": f"{G}::test_feeding_in_parts_is_feeding_at_once",
    "P5": f"{G}::test_a_finished_text_takes_nothing_more_and_another_may_begin",
    "P6": f"{G}::test_all_end_tokens_exactly_where_the_text_may_end",
    "P7": f"{G}::test_all_end_tokens_exactly_where_the_text_may_end",
    "P8": f"{S}", "P9": f"{S}", "P11": f"{S}", "P12": f"{S}",
    "P13": f"{S}", "P16": f"{S}",
    "P10": "serve_formats::test_what_cannot_be_done_is_refused_with_its_reason",
    "P14": f"{S}::test_siblings_of_one_of_are_refused_not_dropped",
    "P15": "serve_formats::test_what_cannot_be_done_is_refused_with_its_reason",
    "P17": f"{G}::test_a_grammar_begins_behind_the_tag_that_ends_thinking serve_formats::test_thoughts",
    "P18": f"{S}", "P19": f"{G}::test_a_text_goes_on_where_it_was",
    "P20": f"{G}::test_a_forbidden_token_ends_its_row_alone",
    "P21": f"{T}::test_a_bare_call_counts_where_it_fits {R}::test_what_models_write_that_is_not_quite_the_form",
    "P22": f"{T}::test_several_calls_of_a_turn", "P23": f"{T}::test_several_calls_of_a_turn",
    "P24": f"{T}::test_a_call_has_arguments_by_its_schema_streamed_or_not",
    "P25": f"{T}::test_several_calls_of_a_turn serve_openai::test_a_chat_with_a_team_is_answered_with_a_text",
    "P26": f"{T}::test_a_conversation_with_results {F}::test_arguments_are_taken_as_an_object_or_as_text",
    "P27": f"{T}::test_no_parameters_are_an_empty_object",
    "P28": f"{T}::test_a_call_has_arguments_by_its_schema_streamed_or_not",
    "P29": f"{R}::test_calls_in_any_chunks",
    "P30": "serve_thoughts::test_two_calls_behind_an_empty_think_block_of_the_prompt",
    "P31": f"{T}::test_several_calls_of_a_turn {F}::test_content_that_is_null_empty_or_left_out_is_the_same",
    "P32": "serve_thoughts::test_a_named_call_behind_a_thought "
    "serve_thoughts::test_a_thought_that_never_ends_is_cut_and_is_no_call",
    "P33": f"{R}::test_calls_in_any_chunks", "P34": f"{T}::test_a_call_without_its_result",
    "P35": f"{T}::test_stop_texts_stand_beside_the_models_own_ends",
    "P36": f"{F}::test_content_that_is_null_empty_or_left_out_is_the_same",
    "P37": f"{T}::test_a_turn_that_ends_at_once_behind_a_result",
    "P38": "serve_formats::test_parse_with_pydantic serve_formats::test_a_schema_in_chat",
    "P39": "serve_stop::test_open_streams_end_with_the_reason serve_stop::test_replies_that_end_in_time_are_whole",
    "P40": f"{RESP}::test_the_events_of_a_message", "P41": f"{RESP}::test_the_events_of_a_message",
    "P42": "serve_thoughts::test_thoughts_words_and_a_call_of_one_response",
    "P43": f"{RESP}::test_calls",
    "P44": f"{RESP}::test_a_conversation_goes_on_and_nothing_of_it_is_encoded_again {RESP}::test_stored_or_not",
    "P45": f"{RESP}::test_the_events_of_a_message", "P46": f"{RESP}::test_stored_or_not",
    "P47": f"{RESP}::test_calls", "P50": f"{MSG}::test_tools", "P51": f"{MSG}::test_tools",
    "P52": f"{MSG}::test_tools",
    "P53": f"{RESP}::test_a_conversation_goes_on_and_nothing_of_it_is_encoded_again {MSG}::test_text",
    "P54": f"{MSG}::test_a_stream_that_breaks_off_has_an_error_and_no_end",
    "P55": f"{CLI}::test_a_server_over_http_that_is_started_again_gets_a_new_session",
    "P56": f"{MCP}::test_a_session_of_before_begins_again",
    "P57": f"{MCP}::test_stdio_carries_messages_alone",
    "P58": f"{CLI}::test_what_is_no_message_is_passed_over_and_logged",
    "P59": f"{MCP}::test_stdio_carries_messages_alone {CLI}::test_tools_are_listed_and_called",
    "P60": f"{CLI}::test_what_is_no_message_is_passed_over_and_logged",
    "P61": f"{CLI}::test_lists_in_pages_and_lists_without_an_end",
    "P62": f"{CLI}::test_lists_in_pages_and_lists_without_an_end",
    "P63": f"{MCP}::test_over_http {CLI}::test_tools_are_listed_and_called",
    "P64": f"{CLI}::test_names_are_fit_distinct_and_stay", "P65": f"{CLI}::test_names_are_fit_distinct_and_stay",
    "P67": f"{MCP}::test_versions_of_the_protocol", "P68": f"{MCP}::test_versions_of_the_protocol",
    "P69": f"{MCP}::test_stdio_carries_messages_alone {MCP}::test_over_http",
    "P70": f"{SK}::test_what_is_only_a_little_wrong_is_read", "P71": f"{SK}::test_what_is_only_a_little_wrong_is_read",
    "P72": f"{SK}::test_what_cannot_be_used_is_named_and_the_others_load",
    "P73": f"{SK}::test_what_is_only_a_little_wrong_is_read",
    "P74": f"{SK}::test_who_comes_first", "P75": f"{SK}::test_who_comes_first",
    "P76": f"{SK}::test_links_and_paths_do_not_lead_out",
    "P78": f"{STORE}::test_four_processes_lose_no_write {STORE}::test_updates_at_once_are_all_kept_in_one_line",
    "P79": f"{STORE}::test_a_list_that_comes_back_later_takes_nothing_away",
    "P80": f"{STORE}::test_updates_at_once_are_all_kept_in_one_line",
    "P81": f"{MEM}::test_calls_of_one_turn_write_side_by_side {STORE}::test_a_damaged_file_is_reported_and_left",
    "P82": f"{MEM}::test_of_more_entries_than_there_is_room_for_a_correction_is_shown_and_the_rest_counted",
    "P83": "documents", "P84": "ask_quotes", "P85": "documents", "P86": "documents",
    "P87": "documents", "P88": "fields", "P89": "forms", "P90": "fields",
    "P91": "fields", "P92": "fields", "P93": "ask_quotes", "P94": "ask_quotes",
    "P95": "ask_quotes",
    "P96": f"{DEC}::test_a_state_that_does_not_fit_the_model", "P97": "decide",
    "P98": f"{DEC}::test_as_many_options_as_there_may_be {DEC}::test_what_cannot_be_asked_names_its_question",
    "P99": f"{DEC}::test_choices_keep_their_types",
    "P100": "serve_guard::test_health_is_what_computes "
    "vllm/vllm_faults::test_a_stopped_rank_is_seen_and_an_idle_one_is_no_fault",
    "P101": "vllm/vllm_faults::test_workers_end_with_the_process_that_started_them",
    "P102": "vllm/vllm_faults::test_a_stopped_rank_is_seen_and_an_idle_one_is_no_fault",
    "P103": "vllm/vllm_faults::test_a_rank_that_fails_while_another_waits_for_it",
    "P104": "ray_serve::test_scaling_down_loses_no_request", "P105": "ray_serve::test_scaling_down_loses_no_request",
    "P106": "ray_serve::test_scaling_down_loses_no_request",
    "P107": f"{RESP}::test_the_turn_behind_one_whose_client_went_away",
    "P109": "postgres_faults::test_nothing_is_open_while_the_model_computes "
    "postgres::test_nothing_is_open_while_a_run_waits",
    "P110": "postgres_faults::test_a_database_that_ends_idle_transactions postgres::test_who_is_late_writes_nothing",
    "P111": "postgres::test_who_is_late_writes_nothing postgres::test_each_run_goes_to_one_taker",
    "P112": "postgres_faults::test_who_watches_from_another_server_over_a_restart "
    "postgres::test_a_restarted_database_is_waited_for",
    "P115": "postgres_faults::test_who_takes_runs_leaves_no_lock postgres::test_each_run_goes_to_one_taker",
    "P116": "postgres_faults::test_a_connection_that_ends_before_and_in_a_write "
    "postgres_faults::test_connections_that_end_again_and_again postgres::test_what_was_saved_is_not_saved_twice",
}  # fmt: skip
CANNOT = {
    "P77": "no archive of skills is unpacked, and no name of one is part of a path that is written",
    "P48": "no tool is run by the server inside a response: only functions are taken, others are refused",
    "P49": "the same",
    "P66": "/mcp has no sessions and keeps no events, so there is nothing to go on from or to mix up",
    "P108": "the only advisory lock, while tables are made, is the transaction's; claims are rows",
    "P113": "nothing listens for notifications: another server's events are read four times a second",
    "P114": "the same",
}


@cache
def source(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return (HERE / folder / f"test_{file}.py").read_text(encoding="utf-8")


def test_every_row_has_an_entry_and_every_entry_its_test() -> None:
    """A test that is named is there; where only a file is named, its text names the row."""
    rows = {f"P{n}" for n in range(1, 117)}
    assert {*HELD, *CANNOT} == rows
    assert len(HELD) + len(CANNOT) == len(rows)
    for row, names in HELD.items():
        for name in names.split():
            file, _, test = name.partition("::")
            if test.startswith("test_"):
                found = {node.name for node in ast.parse(source(file)).body if isinstance(node, ast.FunctionDef)}
                assert test in found, (row, name)
            else:
                assert re.search(rf"\b{row}\b", source(file)), row

"""
Every row of docs/wire.md, and what proves it: golden dialogs, and tests of what a dialog can't show.

Rule 1: a row without a proof fails, and so does a proof of a row that is not
there any more, or one that is itself not there.

Rule 2: every dialog proves something that is written down; else it is a
promise that nobody knows of.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from html import unescape
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "wire.md"

TABLE = "server/test_wire_table.py"
CHECKS = "server/test_checks.py"
STARTTLS = "server/test_starttls.py"
AUTH = "extensions/test_auth.py"
PROXY = "server/test_proxy.py"
XCLIENT = "extensions/test_xclient.py"
CLIENT = "wire/test_client.py"
CLIENT_CLOSING = "wire/test_client_closing.py"
CLIENT_ROWS = "client/test_coming_from_rows.py"
MISBEHAVING = "client/misbehaving"

#: "section / first cell of the row", or the section alone where it is text -> files, classes and tests in this folder.
#: A class is meant with all its tests.
PROVED: dict[str, list[str]] = {
    "What each line on the wire gets": [
        "test_dialogs.py::test_dialog",
        "test_dialogs.py::test_enhanced_codes",
        "wire/test_replies.py::test_the_classes_of_both_codes_agree",
        "wire/test_server_fuzz.py::test_every_line_is_a_reply",
        "wire/test_server_fuzz.py::test_cuts_change_nothing",
        "server/test_hooks.py::Order",
        "server/test_flow.py::SlowReader",
        "dialogs/data_many_messages_pipelined.smtp",
        "dialogs/simple.smtp",
        f"{TABLE}::OfferTests",
        "server/test_lmtp.py::Dialog::test_pipelining_and_enhanced_codes_are_no_choice",
    ],
    "Greeting and hello / connects": ["dialogs/hello_greeting_and_quit.smtp"],
    "Greeting and hello / connects, and is one too many": [
        "server/test_limits.py::Connections",
        f"{TABLE}::FullTests",
    ],
    "Greeting and hello / connects, and a check or the backend refuses": [
        f"{TABLE}::ConnectTests::test_refused_with_421_is_closed",
        f"{TABLE}::ConnectTests::test_refused_with_554_then_503_to_all_but_quit",
        f"{TABLE}::ConnectTests::test_refused_with_any_other_code_becomes_554",
        f"{TABLE}::ConnectTests::test_refused_is_closed_after_30_seconds_at_most",
        f"{CHECKS}::Refused::test_at_connect",
        "server/test_drips.py::RefusedTests",
    ],
    "Greeting and hello / connects, and a check or the backend fails": [
        f"{TABLE}::ConnectTests::test_new_session_that_fails_is_421_and_close",
        f"{TABLE}::ConnectTests::test_a_check_that_fails_is_421_and_close",
    ],
    "Greeting and hello / sends before the greeting": [
        f"{TABLE}::ConnectTests::test_early_talker_is_refused_in_the_strict_profile",
        f"{TABLE}::ConnectTests::test_early_talker_is_ignored_in_the_other_profiles",
        f"{TABLE}::ConnectTests::test_who_waits_for_the_greeting_is_welcome_in_the_strict_profile",
        "policies/test_dialogs.py::EarlyTalkerTests",
    ],
    "Greeting and hello / EHLO name": [
        "dialogs/hello_ehlo_offers.smtp",
        "dialogs/hello_ehlo_nothing_offered.smtp",
        "dialogs/simple.smtp",
    ],
    "Greeting and hello / HELO name": ["dialogs/hello_helo_has_no_extensions.smtp"],
    "Greeting and hello / EHLO or HELO without a name, or with two words": [
        "dialogs/hello_without_name.smtp",
        "dialogs/hello_without_name_strict.smtp",
        "dialogs/hello_two_words_lenient.smtp",
    ],
    "Greeting and hello / a name with control characters or broken UTF-8": ["dialogs/hello_control_characters.smtp"],
    "Greeting and hello / a name that is no domain": [
        "dialogs/hello_odd_names.smtp",
        "dialogs/hello_ehlo_odd_names.smtp",
    ],
    "Greeting and hello / EHLO or HELO, and a check or the backend refuses": [
        "dialogs/hello_check_refuses_then_accepts.smtp",
        f"{CHECKS}::Refused::test_what_is_refused_changes_nothing",
    ],
    "Greeting and hello / EHLO or HELO again": [
        "dialogs/hello_again_resets.smtp",
        f"{TABLE}::AuthTests::test_it_stays_when_ehlo_comes_again",
    ],
    "Greeting and hello / neither of them in time": ["server/test_limits.py::Introductions"],
    "Greeting and hello / LHLO": ["dialogs/hello_lhlo_is_unknown.smtp"],
    "Commands in general / a verb in any case, trailing spaces": ["dialogs/command_any_case.smtp"],
    "Commands in general / a line that ends in a bare LF, or holds a bare CR": [
        "dialogs/lines_bare_lf.smtp",
        "dialogs/lines_bare_lf_strict.smtp",
        "dialogs/lines_bare_lf_lenient.smtp",
        "dialogs/lines_bare_cr.smtp",
        "dialogs/lines_bare_cr_strict.smtp",
        "dialogs/lines_bare_cr_lenient.smtp",
        "dialogs/lines_cr_cr_lf.smtp",
        "dialogs/lines_cr_cr_lf_lenient.smtp",
        f"{AUTH}::Refusals::test_a_response_that_does_not_end_in_crlf",
    ],
    "Commands in general / a line over the limit": [
        "dialogs/lines_too_long.smtp",
        "dialogs/lines_too_long_strict.smtp",
        "dialogs/lines_too_long_lenient.smtp",
        "dialogs/lines_too_long_extensions_add.smtp",
        "dialogs/lines_too_long_strict_extensions_add.smtp",
        "extensions/test_dsn.py::test_the_longest_line",
    ],
    "Commands in general / 64 KiB and no line end": ["dialogs/lines_endless.smtp"],
    "Commands in general / an empty line, or a leading space": ["dialogs/lines_empty_or_leading_space.smtp"],
    "Commands in general / an unknown verb": ["dialogs/command_unknown.smtp"],
    "Commands in general / EXPN, SEND, SOML, SAML, TURN, ETRN, ATRN; STARTTLS, AUTH, BDAT where they are not served": [
        "dialogs/command_not_implemented.smtp",
        "dialogs/command_not_implemented_etrn_atrn.smtp",
    ],
    "Commands in general / a known verb at the wrong moment": [
        "dialogs/mail_out_of_place.smtp",
        "dialogs/rcpt_out_of_place.smtp",
        "dialogs/data_out_of_place.smtp",
        "dialogs/bdat_out_of_place.smtp",
        "dialogs/starttls_out_of_place.smtp",
        f"{AUTH}::Refusals::test_out_of_place",
    ],
    "Commands in general / NOOP, with or without words": ["dialogs/command_noop.smtp"],
    "Commands in general / RSET / with an argument": ["dialogs/command_rset.smtp"],
    "Commands in general / VRFY name": [
        "dialogs/command_vrfy.smtp",
        "dialogs/command_vrfy_smtputf8_not_offered.smtp",
        "server/test_answers.py::Verify",
    ],
    "Commands in general / HELP": ["dialogs/command_help.smtp"],
    "Commands in general / QUIT / with an argument": [
        "dialogs/hello_greeting_and_quit.smtp",
        "dialogs/command_quit_after_all_replies.smtp",
        "dialogs/command_quit_with_argument.smtp",
        f"{TABLE}::SimpleCommandTests::test_quit_waits_for_every_earlier_reply",
        "server/test_timeouts.py::SlowReader::test_a_last_reply_that_is_not_read",
    ],
    "Commands in general / too many errors of a kind": [
        "dialogs/errors_syntax.smtp",
        "dialogs/errors_parameters.smtp",
        "dialogs/errors_tls_required.smtp",
        "dialogs/errors_sequence.smtp",
        "dialogs/errors_recipient.smtp",
        "dialogs/errors_are_counted_apart.smtp",
        "dialogs/errors_survive_rset_and_ehlo.smtp",
        f"{AUTH}::Refusals::test_too_many",
        f"{AUTH}::Refusals::test_wrong_credentials_are_counted_apart",
        f"{AUTH}::Refusals::test_what_else_counts_as_syntax",
    ],
    "Commands in general / too many commands that lead to no mail": [
        "dialogs/limits_commands_without_mail.smtp",
        "server/test_limits.py::Idlers",
    ],
    "Commands in general / silence for too long": [
        f"{TABLE}::SimpleCommandTests::test_idle_past_its_timeout",
        f"{TABLE}::SimpleCommandTests::test_half_a_command_is_idle_too",
        f"{TABLE}::SimpleCommandTests::test_a_waiting_hook_is_not_the_client_being_idle",
        "server/test_timeouts.py::Phases",
        "server/test_drips.py::DripTests",
    ],
    "Commands in general / a half-close (FIN) on a clear line": [
        "test_dialogs.py::test_half_close",
        f"{TABLE}::ConnectTests::test_half_close_before_the_greeting",
        f"{TABLE}::ConnectTests::test_half_close_of_an_early_talker",
        f"{TABLE}::ConnectTests::test_half_close_waits_for_the_answer",
        f"{TABLE}::ConnectTests::test_half_close_while_a_message_is_stored",
        f"{TABLE}::ConnectTests::test_half_close_while_the_session_does_not_read",
        f"{TABLE}::ConnectTests::test_half_close_in_the_middle_of_a_message",
        f"{TABLE}::TrueTLSTests::test_tls_has_no_half_close",
        f"{AUTH}::Refusals::test_a_half_close_in_the_middle",
        f"{AUTH}::Refusals::test_a_half_close_behind_the_response",
        "server/test_flow.py::SlowReader::test_half_close_while_it_does_not_read",
    ],
    "Commands in general / a refusal of the backend, or of a check": [
        "dialogs/command_hook_refuses.smtp",
        f"{TABLE}::SimpleCommandTests::test_421_of_a_hook_is_the_last_word",
        f"{TABLE}::SimpleCommandTests::test_hook_that_fails_later",
        f"{CHECKS}::Refused",
    ],
    "Commands in general / a text of the backend": ["dialogs/command_hook_answers.smtp"],
    "Commands in general / a fault in the backend, or in a check": [
        "dialogs/command_hook_breaks.smtp",
        f"{TABLE}::SimpleCommandTests::test_hook_that_raises_is_logged",
        f"{TABLE}::SimpleCommandTests::test_hook_that_fails_later",
        f"{CHECKS}::Refused::test_what_breaks_is_told_to_the_log_only",
    ],
    "MAIL and RCPT / MAIL FROM:<a@b.example>, MAIL FROM:<>": [
        "dialogs/mail_accepted.smtp",
        "dialogs/mail_null_sender.smtp",
    ],
    "MAIL and RCPT / RCPT TO:<a@b.example>, RCPT TO:<postmaster>": [
        "dialogs/mail_accepted.smtp",
        "dialogs/rcpt_postmaster.smtp",
        "dialogs/rcpt_refused_are_left_out.smtp",
    ],
    "MAIL and RCPT / MAIL before EHLO, or within a transaction; RCPT before MAIL": [
        "dialogs/mail_out_of_place.smtp",
        "dialogs/rcpt_out_of_place.smtp",
    ],
    "MAIL and RCPT / a space behind the colon": [
        "dialogs/mail_space_after_colon.smtp",
        "dialogs/mail_space_after_colon_strict.smtp",
        "dialogs/mail_space_after_colon_lenient.smtp",
    ],
    "MAIL and RCPT / an address without brackets": [
        "dialogs/mail_no_brackets.smtp",
        "dialogs/mail_no_brackets_strict.smtp",
        "dialogs/mail_no_brackets_lenient.smtp",
    ],
    "MAIL and RCPT / no address at all": ["dialogs/mail_bad_path.smtp", "dialogs/rcpt_bad_path.smtp"],
    "MAIL and RCPT / a bad address": [
        "dialogs/mail_bad_path.smtp",
        "dialogs/mail_bad_path_strict.smtp",
        "dialogs/mail_bad_path_lenient.smtp",
        "dialogs/rcpt_bad_path.smtp",
    ],
    "MAIL and RCPT / RCPT TO:<>, or a name without a domain that is not postmaster": [
        "dialogs/rcpt_bad_path.smtp",
        "dialogs/rcpt_null_lenient.smtp",
        "dialogs/rcpt_postmaster.smtp",
    ],
    "MAIL and RCPT / a source route": ["dialogs/mail_source_route.smtp"],
    "MAIL and RCPT / a quoted local part, an address literal": [
        "dialogs/mail_quoted_local_part.smtp",
        "dialogs/mail_address_literals.smtp",
    ],
    "MAIL and RCPT / `a..b@`, `a.@`": [
        "dialogs/mail_bad_path.smtp",
        "dialogs/mail_bad_path_strict.smtp",
        "dialogs/mail_bad_path_lenient.smtp",
    ],
    "MAIL and RCPT / an underscore in a domain": [
        "dialogs/mail_underscore.smtp",
        "dialogs/mail_bad_path_strict.smtp",
        "dialogs/mail_bad_path_lenient.smtp",
    ],
    "MAIL and RCPT / a local part over 64 octets": [
        "dialogs/mail_long_names.smtp",
        "dialogs/mail_long_names_lenient.smtp",
        "dialogs/mail_long_names_strict.smtp",
    ],
    "MAIL and RCPT / a label over 63 octets, a domain over 255": ["dialogs/mail_long_names.smtp"],
    "MAIL and RCPT / an address beyond ASCII without SMTPUTF8": [
        "dialogs/mail_not_ascii.smtp",
        "dialogs/mail_not_ascii_after_helo.smtp",
    ],
    "MAIL and RCPT / SIZE=, BODY=, SMTPUTF8, as EHLO offers them": [
        "dialogs/mail_parameters_any_case.smtp",
        "dialogs/mail_size.smtp",
        "dialogs/mail_size_unlimited.smtp",
        "dialogs/mail_not_ascii.smtp",
    ],
    "MAIL and RCPT / SIZE over the limit": ["dialogs/mail_size.smtp"],
    "MAIL and RCPT / a bad value, the same parameter twice, a stray `=`": [
        "dialogs/mail_broken_parameters.smtp",
        "dialogs/mail_size.smtp",
    ],
    "MAIL and RCPT / an unknown parameter, one that EHLO did not offer, or any after HELO": [
        "dialogs/mail_unknown_parameters.smtp",
        "dialogs/hello_ehlo_nothing_offered.smtp",
        "dialogs/hello_helo_has_no_extensions.smtp",
        "dialogs/rcpt_parameters_after_helo.smtp",
        "dialogs/dsn_not_honoured.smtp",
    ],
    "MAIL and RCPT / BODY=BINARYMIME where BINARYMIME is not offered": ["dialogs/mail_binarymime_not_offered.smtp"],
    "MAIL and RCPT / RET=, ENVID=, NOTIFY=, ORCPT=, where the backend honours DSN": [
        "dialogs/dsn_parameters.smtp",
        "dialogs/dsn_not_honoured.smtp",
        "extensions/test_dsn.py::test_a_session_sees_the_values",
    ],
    "MAIL and RCPT / ENVID over 100 octets, ORCPT over 500, NEVER with others, broken xtext, control characters"
    " in disguise": ["dialogs/dsn_bad_values.smtp", "dialogs/dsn_parameters.smtp"],
    "MAIL and RCPT / REQUIRETLS, where the backend honours it": [
        "dialogs/requiretls_in_clear.smtp",
        "extensions/test_requiretls.py::Offered",
    ],
    "MAIL and RCPT / BY= on MAIL, where the backend honours DELIVERBY": [
        "dialogs/deliverby_parameters.smtp",
        "dialogs/deliverby_bad_values.smtp",
        "dialogs/deliverby_not_honoured.smtp",
        "extensions/test_deliverby.py::test_the_least_time",
        "backends/relay/test_promises.py::test_a_value_of_mail",
    ],
    "MAIL and RCPT / MT-PRIORITY= on MAIL, where the backend honours it": [
        "dialogs/mt_priority_parameters.smtp",
        "dialogs/mt_priority_bad_values.smtp",
        "dialogs/mt_priority_not_honoured.smtp",
        "extensions/test_mt_priority.py::test_a_session_may_change_it",
        "extensions/test_mt_priority.py::test_strangers_do_not_get_ahead",
        "backends/relay/test_promises.py::test_a_value_of_mail",
    ],
    "MAIL and RCPT / RRVS= on RCPT, where the backend honours it": [
        "dialogs/rrvs_parameters.smtp",
        "dialogs/rrvs_bad_values.smtp",
        "dialogs/rrvs_not_honoured.smtp",
        "extensions/test_rrvs.py::test_a_session_refuses",
        "backends/relay/test_promises.py::test_a_value_of_rcpt",
    ],
    "MAIL and RCPT / HOLDFOR=, HOLDUNTIL= on MAIL, where the backend honours FUTURERELEASE": [
        "dialogs/futurerelease_parameters.smtp",
        "dialogs/futurerelease_bad_values.smtp",
        "dialogs/futurerelease_not_honoured.smtp",
        "extensions/test_futurerelease.py::test_what_is_taken",
        "extensions/test_futurerelease.py::test_what_is_held_for_longer_than_it_may_take",
        "backends/relay/test_promises.py::test_a_value_of_mail",
    ],
    "MAIL and RCPT / BODY=BINARYMIME, REQUIRETLS, where mail is [passed on](relay.md) to a server without it": [
        "backends/relay/test_parameters.py::test_binary_octets_that_the_next_hop_does_not_take",
        "backends/relay/test_backend.py::test_a_message_that_requires_tls_of_a_next_hop_that_does_not_offer_it",
    ],
    "MAIL and RCPT / a recipient too many": [
        "dialogs/rcpt_too_many.smtp",
        "dialogs/limits_stated.smtp",
        "dialogs/limits_none.smtp",
    ],
    "MAIL and RCPT / a message more than MAILMAX, where it is set": [
        "dialogs/limits_transactions.smtp",
        "dialogs/limits_stated.smtp",
    ],
    "MAIL and RCPT / a recipient in one domain more than RCPTDOMAINMAX, where it is set": [
        "dialogs/limits_recipient_domains.smtp",
        "dialogs/limits_stated.smtp",
    ],
    "MAIL and RCPT / the same recipient twice": ["dialogs/rcpt_same_twice.smtp"],
    "DATA / DATA": ["dialogs/data_true_end.smtp"],
    "DATA / DATA with an argument": ["dialogs/data_with_argument.smtp"],
    "DATA / DATA without an accepted recipient": [
        "dialogs/data_out_of_place.smtp",
        "dialogs/data_every_recipient_refused.smtp",
    ],
    "DATA / DATA with BODY=BINARYMIME, or after BDAT": [
        "dialogs/data_for_binarymime.smtp",
        "dialogs/data_after_bdat.smtp",
    ],
    "DATA / DATA, and a check refuses / while memory is short": [
        f"{TABLE}::DataTests::test_a_check_is_asked_before_354",
        f"{TABLE}::DataTests::test_memory_is_short",
        f"{CHECKS}::Refused::test_what_is_refused_changes_nothing",
        "server/test_limits.py::Memory",
    ],
    "DATA / CRLF.CRLF": [
        "dialogs/data_true_end.smtp",
        "dialogs/data_true_end_after_dots.smtp",
        "dialogs/data_true_end_after_lf.smtp",
        "dialogs/data_false_end_*.smtp",
        "wire/test_body.py::test_no_message_ends_before_its_last_octet",
        "wire/test_body.py::test_data_decoder_at_every_moment_is_where_the_reference_is",
    ],
    "DATA / CR CRLF.CRLF": ["dialogs/data_true_end_after_cr.smtp", "dialogs/data_true_end_after_cr_strict.smtp"],
    "DATA / a leading dot": ["dialogs/data_leading_dots.smtp"],
    "DATA / a bare CR or LF in the text": [
        "dialogs/data_bare_newlines_normalize.smtp",
        "dialogs/data_bare_newlines_lenient.smtp",
        "dialogs/data_bare_cr_reject.smtp",
        "dialogs/data_bare_lf_reject.smtp",
    ],
    "DATA / NUL, octets over 127, an empty message": [
        "dialogs/data_nul_and_eight_bit.smtp",
        "dialogs/data_empty.smtp",
    ],
    "DATA / a line over the profile's limit": [
        "dialogs/data_long_line.smtp",
        "dialogs/data_long_line_strict.smtp",
        "dialogs/data_long_line_lenient.smtp",
        f"{TABLE}::DataTests::test_line_over_the_limit_of_each_profile",
    ],
    "DATA / a message over the limit, without stuffed dots and the final dot": [
        "dialogs/data_too_large.smtp",
        "dialogs/data_too_large_and_malformed.smtp",
        "dialogs/data_too_large_at_the_bound.smtp",
        "dialogs/data_too_large_by_commands.smtp",
        "dialogs/data_too_large_normalized.smtp",
        "dialogs/data_too_large_past_the_bound.smtp",
    ],
    "DATA / a message with over 100 Received fields": [
        "dialogs/policy_loop.smtp",
        "policies/test_dialogs.py::LoopTests",
    ],
    "DATA / a message that a check or the backend refuses": [
        "dialogs/data_backend_refuses.smtp",
        f"{CHECKS}::Messages",
        "server/test_message_hook.py::Early",
    ],
    "DATA / stops sending, or sends too slowly": [
        f"{TABLE}::DataTests::test_stops_sending",
        f"{TABLE}::DataTests::test_drips_past_the_absolute_limit",
        f"{TABLE}::DataTests::test_drips_below_the_minimum_rate",
        f"{TABLE}::DataTests::test_drips_at_the_minimum_rate",
    ],
    "DATA / goes before the end": [
        f"{TABLE}::DataTests::test_disconnects_before_the_end",
        f"{TABLE}::DataTests::test_a_session_that_reads_learns_of_the_disconnect",
        "server/test_message_hook.py::Cancelled",
    ],
    "BDAT / BDAT n": [
        "dialogs/bdat_chunks.smtp",
        "dialogs/bdat_zero.smtp",
        "dialogs/bdat_pipelined.smtp",
        "dialogs/bdat_content_that_looks_like_an_end.smtp",
        "dialogs/bdat_line_limit_after_chunk.smtp",
    ],
    "BDAT / BDAT n LAST, BDAT 0 LAST": ["dialogs/bdat_chunks.smtp", "dialogs/bdat_zero.smtp"],
    "BDAT / BDAT out of place": [
        "dialogs/bdat_out_of_place.smtp",
        "dialogs/bdat_every_recipient_refused.smtp",
        f"{TABLE}::ChunkTests::test_stops_sending_a_chunk_out_of_place",
    ],
    "BDAT / BDAT n and another word": [
        "dialogs/bdat_junk.smtp",
        "dialogs/bdat_junk_later.smtp",
        "dialogs/bdat_malformed_and_junk.smtp",
    ],
    "BDAT / BDAT without a size that can be read": ["dialogs/bdat_size_*.smtp"],
    "BDAT / the first BDAT, and a check refuses / while memory is short": [
        f"{TABLE}::ChunkTests::test_refused_at_the_first_chunk_is_refused_at_each",
        f"{TABLE}::ChunkTests::test_memory_is_short",
        f"{CHECKS}::Asked::test_bdat_asks_at_the_first_chunk",
        f"{CHECKS}::Patience::test_before_354_nothing_of_the_message_is_taken",
    ],
    "BDAT / more than the limit in all": [
        "dialogs/bdat_too_large.smtp",
        "dialogs/bdat_too_large_past_the_bound.smtp",
        "dialogs/bdat_too_large_without_a_bound.smtp",
        "dialogs/bdat_malformed_and_too_large.smtp",
    ],
    "BDAT / a chunk that declares more than would be read": [
        "dialogs/bdat_too_large_declared.smtp",
        "dialogs/bdat_too_large_declared_out_of_place.smtp",
    ],
    "BDAT / MAIL, RCPT, DATA between chunks": ["dialogs/bdat_commands_between_chunks.smtp"],
    "BDAT / RSET or EHLO between chunks": [
        "dialogs/bdat_commands_between_chunks.smtp",
        f"{TABLE}::ChunkTests::test_rset_in_the_middle_ends_the_reading",
    ],
    "BDAT / bare CR or LF, lines over the limit": [
        "dialogs/bdat_bare_newlines_normalize.smtp",
        "dialogs/bdat_bare_newlines_lenient.smtp",
        "dialogs/bdat_bare_newlines_reject.smtp",
        "dialogs/bdat_crlf_across_chunks_strict.smtp",
        "dialogs/bdat_long_line_strict.smtp",
        "dialogs/bdat_binarymime.smtp",
    ],
    "BDAT / a message that the backend refuses before LAST": [
        "dialogs/bdat_backend_refuses_early.smtp",
        "dialogs/bdat_backend_refuses_at_last.smtp",
        "server/test_message_hook.py::Early::test_of_chunks_each_is_refused",
    ],
    "BDAT / a message with over 100 Received fields": ["dialogs/policy_loop_bdat.smtp"],
    "BDAT / stops sending, or sends too slowly": [
        f"{TABLE}::ChunkTests::test_stops_sending",
        f"{TABLE}::ChunkTests::test_stops_sending_between_two_chunks",
        "server/test_drips.py::DripTests::test_small_chunks_of_a_message",
    ],
    "BDAT / goes before the end": [f"{TABLE}::ChunkTests::test_disconnects_before_the_end"],
    "AUTH / AUTH with right credentials": [f"{AUTH}::Exchange", f"{AUTH}::Offer::test_nothing_once_it_is_done"],
    "AUTH / AUTH with wrong ones": [
        f"{AUTH}::Refusals::test_wrong_credentials_are_answered_late",
        f"{AUTH}::Refusals::test_too_many",
    ],
    "AUTH / AUTH without an initial response": [
        f"{AUTH}::Exchange::test_plain_without_an_initial_response",
        f"{AUTH}::Exchange::test_a_long_challenge_is_one_line",
        f"{TABLE}::AuthTests::test_an_equals_sign_is_an_empty_response",
    ],
    "AUTH / AUTH on a clear line": [f"{AUTH}::Offer::test_nothing_on_a_clear_line"],
    "AUTH / AUTH before EHLO, after HELO, in a transaction, or a second time": [
        f"{AUTH}::Refusals::test_out_of_place",
        f"{TABLE}::AuthTests::test_not_between_chunks",
    ],
    "AUTH / AUTH without a mechanism, with an unknown one": [f"{AUTH}::Refusals::test_words_that_are_wrong"],
    "AUTH / an initial response to CRAM-MD5 / to LOGIN": [
        f"{AUTH}::Refusals::test_words_that_are_wrong",
        f"{AUTH}::Exchange::test_login_with_the_name_as_initial_response",
    ],
    "AUTH / the right proof, by SCRAM": [
        f"{AUTH}::Exchange::test_scram_with_the_servers_last_word",
        f"{AUTH}::Exchange::test_the_last_word_is_answered_by_an_empty_line_and_by_nothing_else",
    ],
    "AUTH / a wrong token, by OAUTHBEARER or XOAUTH2": [f"{TABLE}::AuthTests::test_a_token_that_is_refused"],
    "AUTH / bad base64, `*`": [
        f"{AUTH}::Refusals::test_words_that_are_wrong",
        f"{AUTH}::Refusals::test_a_response_that_is_wrong",
    ],
    "AUTH / a line over 12,288 octets": [
        f"{TABLE}::AuthTests::test_the_longest_line",
        f"{AUTH}::Refusals::test_long_lines",
    ],
    "AUTH / AUTH while the checker is out of order": [f"{AUTH}::Refusals::test_a_checker_that_is_out_of_order"],
    "AUTH / AUTH where nobody may": [
        f"{AUTH}::Offer::test_nothing_without_a_checker",
        "dialogs/command_not_implemented.smtp",
    ],
    "AUTH / MAIL where it is required": [f"{AUTH}::Refusals::test_required"],
    "AUTH / MAIL with `AUTH=<>`, `AUTH=xtext`, `AUTH=<a@b>`": [f"{AUTH}::Submitter"],
    "STARTTLS / STARTTLS": [
        f"{STARTTLS}::Explicit::test_everything_is_forgotten",
        f"{STARTTLS}::Explicit::test_a_transaction_is_dropped_wherever_it_is",
        f"{STARTTLS}::Explicit::test_it_is_offered_until_it_is_on",
        f"{TABLE}::StartTLSTests::test_nothing_is_remembered",
        f"{TABLE}::StartTLSTests::test_is_no_longer_advertised_and_503_within_tls",
        f"{TABLE}::TrueTLSTests::test_connect_checks_are_not_asked_again",
        f"{TABLE}::TrueTLSTests::test_authentication_is_forgotten",
        f"{TABLE}::TrueTLSTests::test_the_time_to_say_ehlo_begins_anew",
    ],
    "STARTTLS / STARTTLS with an argument": ["dialogs/starttls_with_argument.smtp"],
    "STARTTLS / STARTTLS before EHLO, after HELO, or within TLS": [
        "dialogs/starttls_out_of_place.smtp",
        f"{STARTTLS}::Implicit::test_starttls_within_tls",
        f"{STARTTLS}::Explicit::test_it_is_offered_until_it_is_on",
    ],
    "STARTTLS / STARTTLS where there is no certificate": [
        "dialogs/starttls_not_configured.smtp",
        f"{TABLE}::StartTLSTests::test_without_a_usable_certificate",
    ],
    "STARTTLS / sends more in clear right behind STARTTLS": [
        "dialogs/starttls_octets_behind.smtp",
        "dialogs/starttls_octets_behind_in_transaction.smtp",
        f"{STARTTLS}::Explicit::test_octets_behind_it_in_the_same_segment",
    ],
    "STARTTLS / sends in clear behind the 220": [f"{STARTTLS}::Explicit::test_octets_in_clear_after_the_220"],
    "STARTTLS / a handshake that fails or takes too long": [
        f"{STARTTLS}::Explicit::test_a_handshake_that_stalls",
        f"{STARTTLS}::Implicit::test_a_silent_peer",
        f"{STARTTLS}::Implicit::test_a_peer_that_speaks_in_clear",
        f"{TABLE}::StartTLSTests::test_handshake_that_fails_is_closed",
        f"{TABLE}::StartTLSTests::test_handshake_that_stalls_is_closed",
        f"{TABLE}::TrueTLSTests::test_a_handshake_that_comes_to_nothing_is_logged",
        f"{TABLE}::TrueTLSTests::test_a_silent_peer_blocks_nobody",
    ],
    "STARTTLS / a handshake, and then the backend refuses": [
        f"{STARTTLS}::Explicit::test_a_second_session_that_is_refused"
    ],
    "STARTTLS / any but NOOP, EHLO, STARTTLS, QUIT in clear, where TLS is required": [
        "dialogs/mail_tls_required.smtp",
        f"{STARTTLS}::Required",
        f"{TABLE}::StartTLSTests::test_required_tls_lets_everything_pass_afterwards",
        f"{AUTH}::Refusals::test_before_tls_where_that_is_required",
        f"{XCLIENT}::NotBelieved::test_before_tls_where_that_is_required",
    ],
    "PROXY and XCLIENT / connects from a network of `proxy`": [
        f"{PROXY}::test_a_header",
        f"{PROXY}::Headers",
        f"{PROXY}::Handing",
        f"{PROXY}::Seen",
    ],
    "PROXY and XCLIENT / sends a header that is malformed, something else, or none in time": [
        f"{PROXY}::test_what_is_none",
        f"{PROXY}::Headers::test_what_is_none_is_closed_without_a_word",
        f"{PROXY}::Headers::test_none_in_time",
    ],
    "PROXY and XCLIENT / sends a PROXY header from elsewhere, or a second one": [
        f"{PROXY}::Networks::test_from_elsewhere_it_is_a_mistake",
        f"{PROXY}::Networks::test_a_binary_one_from_elsewhere",
        f"{PROXY}::Networks::test_before_tls_from_elsewhere",
        f"{PROXY}::Headers::test_it_is_no_command_later_on",
    ],
    "PROXY and XCLIENT / EHLO, from a network of `xclient`": [
        f"{XCLIENT}::Believed::test_all_of_it",
        f"{XCLIENT}::NotBelieved::test_from_elsewhere",
    ],
    "PROXY and XCLIENT / XCLIENT, from a network of `xclient`": [
        "dialogs/xclient.smtp",
        f"{XCLIENT}::Believed",
        f"{XCLIENT}::Asked",
    ],
    "PROXY and XCLIENT / XCLIENT from elsewhere, or again behind ADDR": [
        "dialogs/xclient_not_for_you.smtp",
        "dialogs/xclient_not_configured.smtp",
        f"{XCLIENT}::NotBelieved",
    ],
    "PROXY and XCLIENT / XCLIENT with a bad attribute or value, or without any": [
        "dialogs/xclient_malformed.smtp",
        f"{XCLIENT}::test_what_is_refused",
        f"{XCLIENT}::NotBelieved::test_it_changes_nothing_if_it_is_malformed",
    ],
    "PROXY and XCLIENT / XCLIENT within a transaction": [
        "dialogs/xclient.smtp",
        f"{XCLIENT}::NotBelieved::test_within_a_transaction",
    ],
    "LMTP": [
        "dialogs/lmtp_*.smtp",
        "server/test_lmtp.py::Dialog",
        "server/test_lmtp.py::Statuses",
        f"{CHECKS}::Messages::test_lmtp_answers_each",
        "config/test_listeners.py::test_lmtp_is_not_for_port_25",
    ],
    "Shutdown": [
        "server/test_stop.py::Stop",
        f"{TABLE}::TrueTLSTests::test_shutdown_is_told_within_tls",
        f"{AUTH}::Refusals::test_a_shutdown_waits_for_no_response",
        "test_service.py::test_a_busy_session_gets_its_grace_and_a_second_signal_ends_it",
        "test_service.py::ServiceTests::test_the_first_signal_drains_in_order",
        "test_service.py::ServiceTests::test_the_second_signal_does_not_wait",
        "durability/test_sigterm.py::test_everybody_gets_an_answer_that_is_true",
    ],
    "The client / the greeting is not 220": [f"{CLIENT}::test_other_greetings"],
    "The client / it introduces itself": [
        f"{CLIENT}::test_hello_is_said_by_itself_and_once",
        "client/test_destination.py::test_the_full_name",
        "client/test_destination.py::test_no_full_name",
        "client/test_destination.py::test_address_literals",
    ],
    "The client / EHLO gets 500, 501, 502, 504 or 550": [
        f"{CLIENT}::test_helo",
        "client/test_after_others.py::test_helo_offers_nothing",
    ],
    "The client / EHLO gets another refusal, or HELO one": [
        f"{CLIENT}::test_helo_refused",
        f"{CLIENT}::test_ehlo_refused_for_good",
    ],
    "The client / LHLO is refused": [f"{CLIENT}::test_lhlo_is_not_tried_as_anything_else"],
    "The client / 421 comes, at any point": [
        f"{CLIENT_CLOSING}::test_421",
        f"{CLIENT}::test_421_to_nothing",
        f"{MISBEHAVING}/test_anywhere.py::test_421",
    ],
    "The client / a reply is no reply: bad codes, changing codes, bare line ends, 128 KiB and no end": [
        f"{CLIENT_CLOSING}::test_what_is_no_reply",
        f"{CLIENT_CLOSING}::test_a_reply_has_a_limit",
        f"{MISBEHAVING}/test_anywhere.py::test_anywhere",
    ],
    "The client / a reply comes that nothing has asked for": [
        f"{CLIENT}::test_a_reply_to_nothing",
        f"{CLIENT}::test_two_replies_where_one_is_due",
        f"{MISBEHAVING}/test_codes.py::test_extra_replies_are_the_answer_to_nothing",
    ],
    "The client / an address, a parameter or a command holds CR, LF, NUL, or what would add another word": [
        f"{CLIENT}::test_a_command_is_one_line",
        f"{CLIENT_ROWS}::test_an_address_says_nothing_but_an_address",
        "wire/test_commands.py::test_hostile_values_are_not_sent",
    ],
    "The client / the message has octets over 127": [
        f"{CLIENT_ROWS}::test_what_is_needed_is_asked_for_and_nothing_else",
        f"{CLIENT_ROWS}::test_what_is_not_offered_is_refused_here",
    ],
    "The client / an address or the header section is not ASCII": [
        f"{CLIENT_ROWS}::test_what_is_needed_is_asked_for_and_nothing_else",
        f"{CLIENT_ROWS}::test_what_is_not_offered_is_refused_here",
    ],
    "The client / the message is binary": [
        f"{CLIENT_ROWS}::test_octets_without_lines",
        f"{CLIENT_ROWS}::test_what_is_not_offered_is_refused_here",
    ],
    "The client / the size is known and SIZE offered": [
        f"{CLIENT_ROWS}::test_what_is_needed_is_asked_for_and_nothing_else",
        f"{CLIENT_ROWS}::test_a_message_over_the_size_that_the_server_takes",
    ],
    "The client / a parameter was asked for: RET, ENVID, NOTIFY, ORCPT, REQUIRETLS, AUTH": [
        f"{CLIENT_ROWS}::test_parameters_of_mail",
        f"{CLIENT_ROWS}::test_parameters_of_rcpt",
        f"{CLIENT_ROWS}::test_what_is_not_offered_is_refused_here",
    ],
    "The client / REQUIRETLS was asked for": [
        f"{CLIENT_ROWS}::test_parameters_of_mail",
        f"{CLIENT_ROWS}::test_what_is_not_offered_is_refused_here",
    ],
    "The client / LIMITS states RCPTMAX": [f"{CLIENT_ROWS}::test_no_more_recipients_than_the_server_states"],
    "The client / PIPELINING is offered, or it is LMTP": [
        f"{CLIENT_ROWS}::test_commands_are_sent_ahead_where_that_is_offered",
        f"{CLIENT_ROWS}::test_the_next_envelope_shares_a_write_with_the_end_of_the_message_before",
    ],
    "The client / PIPELINING is not offered": [f"{CLIENT_ROWS}::test_commands_are_sent_ahead_where_that_is_offered"],
    "The client / CHUNKING is offered": [
        f"{CLIENT_ROWS}::test_messages_go_by_bdat_where_that_is_offered",
        f"{CLIENT_ROWS}::test_chunks_ahead_of_their_replies",
    ],
    "The client / some recipients are refused": [f"{CLIENT_ROWS}::test_a_result_for_each_recipient"],
    "The client / all recipients are refused": [
        "client/test_after_others.py::test_mail_comes_behind_the_reset_of_what_was_given_up"
    ],
    "The client / every RCPT was refused and 354 comes all the same": [
        f"{MISBEHAVING}/test_codes.py::test_all_recipients_refused_and_354_all_the_same"
    ],
    "The client / 552 answers RCPT": [f"{CLIENT_ROWS}::test_too_many_recipients_is_temporary"],
    "The client / it sends a text by DATA": [
        f"{CLIENT_ROWS}::test_newlines_dots_and_the_end",
        "wire/test_body.py::test_data_encoder_does_as_the_reference",
        "wire/test_body.py::test_nothing_in_a_message_ends_it_or_its_lines_early",
    ],
    "The client / it sends a text by BDAT": [f"{CLIENT_ROWS}::test_messages_go_by_bdat_where_that_is_offered"],
    "The client / a message breaks off at its source": [f"{CLIENT_ROWS}::test_a_source_that_breaks_off"],
    "The client / the server answers before the end of the message": [
        f"{CLIENT_ROWS}::test_an_answer_before_the_end",
        f"{MISBEHAVING}/test_body.py::test_in_the_middle_of_a_message",
    ],
    "The client / the connection ends, or breaks the rules, behind the end of the message": [
        f"{CLIENT_ROWS}::test_a_connection_that_was_lost_behind_the_end_is_neither_success_nor_failure",
        f"{MISBEHAVING}/test_anywhere.py::test_anywhere",
    ],
    "The client / PLAIN, LOGIN, a token, and no TLS that was verified": [
        "sasl/test_pairs.py::TestTheGuard",
        f"{CLIENT_ROWS}::test_tls_is_verified_only_with_a_certificate_for_the_name",
    ],
    "The client / AUTH is refused": [f"{CLIENT_ROWS}::test_a_failed_log_in_closes_the_connection"],
    "The client / a challenge makes no sense": [f"{CLIENT_ROWS}::test_a_challenge_that_makes_no_sense"],
    "The client / AUTH is asked for and not offered": [f"{CLIENT_ROWS}::test_logging_in_where_nobody_can_is_an_error"],
    "The client / STARTTLS is refused or not offered, where TLS is required": [
        f"{CLIENT_ROWS}::test_a_starttls_that_is_refused"
    ],
    "The client / STARTTLS is refused or not offered, where it is opportunistic": [
        f"{CLIENT_ROWS}::test_a_starttls_that_is_refused"
    ],
    "The client / TLS is not wanted (`none`)": [f"{MISBEHAVING}/test_one_call.py::test_none_says_nothing_of_it"],
    "The client / octets come behind the 220 of STARTTLS, or the handshake fails": [
        f"{CLIENT_CLOSING}::test_octets_in_clear_behind_starttls",
        f"{CLIENT_ROWS}::test_a_handshake_that_fails_is_the_end_whatever_the_policy",
    ],
    "The client / TLS has started": [f"{CLIENT_CLOSING}::test_starttls"],
    "The client / 252 answers VRFY": [f"{CLIENT_ROWS}::test_reset_noop_verify"],
    "The client / QUIT is answered by 2xx / is refused": [
        f"{CLIENT_ROWS}::test_a_message_step_by_step",
        f"{CLIENT_ROWS}::test_a_quit_that_is_refused_leaves_the_connection_open",
    ],
    "The client / LMTP": [f"{CLIENT_ROWS}::test_lmtp_results_by_a_function"],
    "The client / the server is silent": [
        f"{MISBEHAVING}/test_silence.py::test_silence",
        f"{MISBEHAVING}/test_silence.py::test_a_reply_in_drops",
    ],
    "The client / the server takes no octets of a message": [f"{CLIENT_ROWS}::test_a_server_that_takes_no_octets"],
}

#: Its rows are compared with the profiles themselves, and each difference has its row above.
PROFILES = "Profiles"

_HEADING = re.compile(r"^##? (.*)$", re.MULTILINE)
_SEPARATOR = re.compile(r"\|(-+\|)+")


def rows_of(page: str) -> list[str]:
    """``section / first cell`` for each row; ``section`` for each that has no table."""
    found: list[str] = []
    _, *parts = _HEADING.split(page)
    for section, text in zip(parts[::2], parts[1::2], strict=True):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        if section == PROFILES:
            continue
        if not lines:
            found.append(section)
            continue
        assert _SEPARATOR.fullmatch(lines[1]), f"{section} has more than one table, or one without a head"
        found += [f"{section} / {unescape(line.strip('| ').split(' | ')[0])}" for line in lines[2:]]
    return found


ROWS = rows_of(PAGE.read_text())


@cache
def names_in(path: Path) -> frozenset[str]:
    """``test``, ``Class`` and ``Class::test`` of a file; a class counts if it has a test."""
    names: set[str] = set()

    def collect(nodes: list[ast.stmt], prefix: str) -> bool:
        before = len(names)
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
                names.add(prefix + node.name)
            elif isinstance(node, ast.ClassDef) and not prefix and collect(node.body, f"{node.name}::"):
                names.add(node.name)
        return len(names) > before

    collect(ast.parse(path.read_text()).body, "")
    return frozenset(names)


def exists(proof: str) -> bool:
    """Whether there is such a dialog, or such a test."""
    path, _, name = proof.partition("::")
    if path.startswith("dialogs/"):
        return any(TESTS.glob(path))
    return (TESTS / path).is_file() and name in names_in(TESTS / path)


def test_every_row_is_proved() -> None:
    assert [row for row in ROWS if not PROVED.get(row)] == []


def test_every_proof_has_its_row() -> None:
    assert [row for row in PROVED if row not in ROWS] == []


def test_no_row_stands_there_twice() -> None:
    assert len(ROWS) == len(set(ROWS))


def test_every_proof_is_there() -> None:
    assert [proof for proofs in PROVED.values() for proof in proofs if not exists(proof)] == []


def test_every_dialog_proves_a_row() -> None:
    named = {path for proofs in PROVED.values() for proof in proofs for path in TESTS.glob(proof)}
    assert [path.name for path in sorted(TESTS.glob("dialogs/*.smtp")) if path not in named] == []


@pytest.mark.parametrize(
    "proof",
    [
        "dialogs/nowhere.smtp",
        "dialogs/nowhere_*.smtp",
        "test_nowhere.py::test_dialog",
        "test_dialogs.py",
        "test_dialogs.py::test_nothing",
        "test_dialogs.py::CASES",
        "server/test_limits.py::Memory::test_one_too_many",
        "server/test_wire_table.py::TLSTransport",
    ],
)
def test_what_is_no_proof(proof: str) -> None:
    assert not exists(proof)


def test_what_is_read_of_a_page() -> None:
    page = (
        "# One\n\nText.\n\n## Two\n\nMore.\n\n| a | b |\n|---|---|\n| RCPT TO:&lt;&gt; | 501 / 5.1.3 |\n| x / y | z |\n"
    )
    assert rows_of(page) == ["One", "Two / RCPT TO:<>", "Two / x / y"]

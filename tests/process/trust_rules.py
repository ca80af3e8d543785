#!/usr/bin/python3
"""trust_rules - who gets in, who may do what, what hostile bytes do: each with the tests that show it,
and the counters of a node that say what happened.

A rule is a sentence, tests, and counters. A test is FOLDER/FILE:NAME: `Test(suite, NAME` of
tests/FOLDER/test_FILE.c, or `def test_NAME` of test_FILE.py; without a name, FOLDER/FILE is a fuzz
target with its inputs, or a script of tests/FOLDER. A counter must be in what one of the rule's tests
of processes looks at. Who changes a rule finds here what shows it; who renames or drops a test is told
here which rule it held.

    trust_rules.py ROOT    prints the rules whose tests or counters are not in the tree; 1 if there is any
    trust_rules.py         prints all rules with their tests and counters
"""
import fnmatch
import pathlib
import re
import sys

STRANGERS = """Who does not belong is turned away, and the node serves as before"""
STRANGER_RULES = {
    "a certificate of another CA":
        ("process/trust:who_cannot_show_one_is_turned_away process/trust:a_peer_of_another_ca_is_refused_by_both"
         " tls/tls:who_is_of_another_ca_is_refused_and_told"
         " gate/tls:who_is_not_of_the_mesh_is_turned_away_and_counted",
         "gate_tls_failed_untrusted"),
    "none at all":
        ("process/trust:who_cannot_show_one_is_turned_away tls/tls:who_shows_no_certificate_is_refused",
         "gate_tls_failed_no_certificate"),
    "one that has expired, or is not valid yet":
        ("process/trust:who_cannot_show_one_is_turned_away"
         " process/trust_files:a_certificate_that_ends_ends_no_link_but_opens_none"
         " tls/tls:the_time_of_a_certificate_is_looked_at_in_both_roles"
         " tls/resume:a_certificate_that_has_ended_does_not_come_back_by_its_ticket",
         "gate_tls_failed_expired"),
    "the right CA and another id: in the preamble, in Register and Hello, in the answer to a dial":
        ("process/trust:a_certificate_speaks_for_nobody_else"
         " process/trust:a_configured_peer_with_another_id_is_not_linked_with"
         " process/trust_data:a_body_that_names_another_is_refused"
         " process/trust_data:a_session_is_of_use_to_its_own_peer_only"
         " process/trust_data:who_claims_another_id_in_its_answer_gets_no_link"
         " process/trust_data:who_claims_to_be_the_node_itself_does_not_stop_it"
         " gate/tls:a_preamble_names_only_who_its_certificate_names"
         " gate/tls_dial:another_than_was_expected_is_told_nothing",
         "gate_tls_failed_identity node_registers_refused"),
    "a DNS name counts, byte for byte; the common name, wildcards and a NUL inside do not":
        ("tls/identity:dns_names_in_their_order_and_spelling tls/identity:the_common_name_is_nobody"
         " tls/identity:wildcards_and_what_is_no_peer_id_are_left_out"
         " tls/identity:a_nul_inside_a_name_hides_nothing", ""),
    "revoked by a list: links and streams end, and it does not come back, by a ticket neither":
        ("process/trust_revoked:who_dialled_loses_its_link_and_its_streams_and_cannot_come_back"
         " process/trust_revoked:who_was_dialled_loses_it_likewise"
         " process/trust_revoked:what_is_revoked_of_somebody_else_ends_nothing"
         " process/client_tls:who_is_revoked_is_refused_until_it_has_another_certificate"
         " tls/resume:a_revoked_one_does_not_come_back_by_its_ticket"
         " forward/pass_tls:one_that_was_on_its_way_when_its_peer_was_revoked_is_reset_when_it_comes",
         "gate_tls_revoked gate_tls_failed_revoked forward_data_revoked node_links_lost"),
    "revoked by policy: the same":
        ("process/trust_revoked:who_may_have_no_link_any_more_loses_it_and_its_streams"
         " process/policy:other_rules_take_away_and_give_back_while_all_runs"
         " node/policy:a_peer_that_may_have_no_link_any_more_is_told_so_and_its_rows_go",
         "policy_denied_link"),
    "TLS 1.2, another ALPN or none, early data, garbage":
        ("process/trust:who_cannot_show_one_is_turned_away tls/tls:tls_1_2_is_refused_in_both_roles"
         " tls/tls:who_asks_for_no_or_another_protocol_is_refused tls/resume:early_data_is_refused"
         " tls/tls:plain_bytes_are_no_tls",
         "gate_tls_failed_broken"),
    "plaintext where there is TLS, TLS where there is none":
        ("process/trust:plaintext_is_closed_and_counted process/trust:tls_on_a_plaintext_port_is_closed_and_counted"
         " process/trust:a_node_without_tls_gets_no_link_and_is_told_so"
         " gate/tls:plaintext_is_closed_at_its_first_byte"
         " gate/tls:there_is_no_tls_inside_tls"
         " forward/pass_tls:data_in_plaintext_or_with_anothers_certificate_is_refused"
         " forward/pass_tls:data_in_tls_is_refused_where_the_mesh_is_plaintext",
         "gate_closed_plaintext gate_closed_bad_first_bytes"),
    "without TLS nothing listens or is dialled beyond loopback, unless insecure says so":
        ("process/trust_hosts:without_tls_a_node_neither_listens_nor_dials_there"
         " process/trust_hosts:nor_where_a_name_leads"
         " daemon/config:plaintext_on_an_open_address_wants_insecure"
         " daemon/config:plaintext_is_not_dialled_to_an_open_address_either", ""),
}

MESH = """Who belongs, and how it goes on"""
MESH_RULES = {
    "three commands make a mesh of three; certificates from elsewhere do as well":
        ("process/trust:a_mesh_of_three_in_three_commands process/ca:three_nodes_take_two_commands_and_openssl_agrees"
         " process/trust:everything_works_over_it tls/interop:openssl_s_client_dials"
         " tls/interop:openssl_s_server_answers"
         " tls/interop:rsa_from_elsewhere tls/interop:ed25519_below_an_intermediate_ca_from_elsewhere",
         "gate_tls_handshakes forward_data_accepted"),
    "files of the CA are for their owner only, and nothing of it is replaced":
        ("tls/ca:everything_is_for_its_owner_only tls/ca:a_ca_is_never_replaced"
         " tls/ca:a_key_without_a_ca_is_never_replaced"
         " process/ca:many_at_once_do_not_disturb_each_other", ""),
    "certificates and CAs change under links and streams; files that are broken change nothing":
        ("process/trust_files:certificates_and_cas_change_under_a_link_and_a_stream"
         " process/trust_files:files_that_are_broken_change_nothing tls/again:a_ca_is_changed_while_sessions_go_on"
         " daemon/credentials:a_folder_that_is_swapped_behind_links_is_seen", ""),
    "the kernel encrypts where it can; an end that nobody vouches for is a reset":
        ("tls/offload:only_where_it_may tls/offload:plain_bytes_into_the_descriptor_are_encrypted"
         " forward/relay_tls:an_end_that_nobody_vouches_for_is_a_reset"
         " tls/tls:a_fin_without_close_notify_is_a_cut", ""),
    "a token or a session's id is of use to nobody else, and compared in constant time":
        ("process/trust_data:a_token_opens_a_link_for_nobody_else"
         " process/trust_data:a_session_is_of_use_to_its_own_peer_only"
         " node/register:a_wrong_token_opens_nothing_and_is_counted node/register:a_token_lives_10_s"
         " base/secret:secrets_are_equal_when_every_byte_is",
         "node_tokens_refused gate_data_refused"),
    "keys, tokens and ids are in nothing that a node prints, logs or answers; nor in core dumps":
        ("process/trust_shown:no_key_token_or_id_is_in_what_a_node_prints_logs_or_answers"
         " process/policy:what_is_shown_of_a_session_claims_nothing"
         " process/confine:memory_is_kept_from_the_disk_unless_asked_for"
         " process/confine:its_memory_is_kept_from_the_users_other_processes", ""),
}

POLICY = """Who may do what: each refusal is told with its rule, and counted"""
POLICY_RULES = {
    "a name outside the globs, by Register: left out, the rest lands":
        ("process/policy:names_outside_the_globs_are_left_out_of_a_register_and_the_rest_lands"
         " node/policy:a_register_lands_without_the_names_that_are_not_allowed", "policy_denied_register"),
    "and by Sync, whole or a change":
        ("process/policy:names_outside_the_globs_are_left_out_of_a_sync_and_change_one_by_one"
         " process/policy:a_list_that_fits_no_message_lands_without_the_names_that_are_not_allowed"
         " node/policy:a_sync_lands_likewise_and_its_digest_is_that_of_what_was_offered", "policy_denied_register"),
    "no link, for who dials and who is dialled":
        ("process/policy:who_may_have_no_link_is_refused_told_why_and_comes_back_slowly"
         " process/policy:a_node_does_not_link_with_whom_it_dials_either"
         " node/policy:a_link_is_refused_even_with_a_good_token", "policy_denied_link"),
    "no Forward to what a rule does not name; no DATA of who may have no link":
        ("process/policy:a_forward_that_no_rule_allows_is_a_403_which_says_so"
         " forward/pass_policy:a_forward_that_a_rule_does_not_allow_is_refused_by_its_name"
         " forward/pass_policy:data_of_who_may_have_no_link_is_refused", "policy_denied_forward"
         " forward_end_not_allowed"),
    "no questions from who may not ask":
        ("process/policy:strangers_learn_nothing_and_programs_on_the_socket_do",
         "policy_denied_introspect policy_denied_lookup"),
    "local services are changed through the local socket, from afar only where a rule allows it":
        ("process/policy:programs_offer_what_their_rule_says"
         " process/strangers:calls_that_change_something_are_refused_to_strangers"
         " process/client_tls:nothing_is_offered_from_afar_unless_a_rule_allows_it"
         " node/policy:over_the_network_offers_need_a_rule_and_a_certificate"
         " process/confine:the_local_socket_is_for_whom_the_settings_say", "policy_denied_offer"),
    "rules that cannot be read change nothing; refusals fill no log":
        ("process/policy:rules_that_cannot_be_read_change_nothing"
         " process/trust_revoked:settings_that_will_not_do_change_nothing"
         " daemon/policy:a_flood_of_refusals_fills_no_log"
         " base/log:lines_that_others_cause_are_limited_and_the_rest_is_counted", "policy_rules"),
}

HOSTILE = """Hostile bytes: afterwards the node serves as before, and holds no more"""
HOSTILE_RULES = {
    "a Forward to a name that is not registered here, or to an address":
        ("process/hostile:a_forward_reaches_what_is_registered_here_and_nothing_else"
         " forward/pass_refusals:a_name_that_is_not_registered_here_is_refused", "forward_forwards_received"),
    "CONNECT to a host that is no service":
        ("process/hostile:connect_reaches_services_and_nothing_else"
         " process/forward_ports:nothing_but_services_is_ever_dialled",
         "forward_end_no_such_name forward_end_bad_request"),
    "DATA with an id that is guessed, used, late, or another's":
        ("process/hostile:a_data_connection_with_an_id_that_is_guessed_used_or_late_is_closed_and_counted"
         " process/trust_data:an_id_that_nobody_gave_reaches_nobody process/trust_data:a_used_id_reaches_nobody_again"
         " process/trust_data:an_id_whose_time_is_over_reaches_nobody"
         " process/trust_data:a_session_is_of_use_to_its_own_peer_only forward/pass_data:one_id_is_joined_once"
         " forward/pass_data:another_sessions_id_is_nobodys",
         "forward_data_late forward_data_unexpected gate_data_refused"),
    "six random bytes on each port, ten thousand times":
        ("process/hostile:six_random_bytes_on_the_mesh_port process/hostile:six_random_bytes_on_the_local_socket"
         " process/hostile:six_random_bytes_on_an_ingress_port process/hostile_tls:six_random_bytes_on_the_mesh_port"
         " process/hostile_tls:six_random_bytes_that_begin_like_tls"
         " process/hostile_tls:six_random_bytes_inside_a_session",
         "gate_closed_bad_first_bytes gate_closed_plaintext gate_tls_failed_broken forward_accepted"),
    "a thousand slow clients":
        ("process/hostile:a_thousand_slow_clients_hold_up_nobody"
         " process/hostile_tls:a_thousand_slow_clients_hold_up_nobody"
         " gate/sniff:a_byte_now_and_then_buys_no_time gate/tls:who_takes_too_long_is_closed_wherever_it_stands"
         " gate/client:a_request_that_comes_too_slowly_ends_the_connection"
         " process/forward_refusals:a_head_that_does_not_end_is_told_so_in_time_however_slowly_it_comes",
         "gate_half_open forward_end_too_slow gate_closed_first_bytes_late"),
    "many of one address that say nothing, and floods of handshakes":
        ("process/hostile:silent_strangers_of_one_address_leave_room_for_who_speaks"
         " process/forward_refusals:clients_that_say_nothing_are_bounded_per_address"
         " gate/sniff:of_all_who_are_nobody_yet_the_oldest_over_the_limit_is_closed"
         " gate/tls:a_link_is_heard_during_a_flood_of_handshakes", "gate_closed_over_half_open"),
    "a length of 1 GiB, in each place that has one":
        ("process/hostile:announced_lengths_are_refused_before_anything_is_held"
         " process/hostile_tls:announced_lengths_are_refused_before_anything_is_held"
         " process/hostile:an_announced_length_on_a_link_ends_the_link_and_nothing_else"
         " wire/sp:longer_than_allowed_is_refused_before_its_payload wire/check:lengths_beyond_the_end_are_refused"
         " wire/check:floods_of_tiny_fields_are_refused",
         "gate_closed_too_big gate_closed_bad_message rpc_bad_header rpc_bad_message"),
    "YAML bombs":
        ("process/hostile:files_that_are_large_inside_are_refused_quickly"
         " daemon/config_yaml:aliases_anchors_and_tags_are_refused"
         " daemon/config_yaml:deep_nesting_ends_the_reading daemon/config_yaml:a_file_has_a_largest_size", ""),
    "any bytes to a real node, while its peers and clients are served":
        ("process/strangers:node_is_as_before_after_hostile_connections"
         " gate/hostile:connections_leave_memory_descriptors_and_lanes_as_they_were", "gate_parked gate_lanes_lost"),
    "what strangers send forges no line of a log, and moves no terminal":
        ("process/log:what_strangers_send_cannot_forge_a_line base/log:strangers_bytes_are_escaped"
         " base/log:every_byte_gives_a_printable_line daemon/events:a_line_says_who_and_why_in_printable_bytes"
         " process/trust_shown:names_in_certificates_move_no_terminal_and_forge_no_line", ""),
    "each parser, and sequences of messages, have a fuzz target whose saved inputs are tests":
        ("fuzz/frame fuzz/message fuzz/sp fuzz/preamble fuzz/http_head fuzz/client_hello fuzz/first fuzz/proxy_header"
         " fuzz/config fuzz/service_addr fuzz/peer_addr fuzz/ingress_addr fuzz/meshcat_opts fuzz/cli fuzz/tls"
         " fuzz/gate"
         " fuzz/node fuzz/peers fuzz/forward", ""),
}

PROCESS = """The process keeps to what it needs"""
PROCESS_RULES = {
    "compiler and linker have hardened what is installed": ("hardening/hardening.py", ""),
    "privileges go once the ports are bound":
        ("process/confine:root_becomes_the_user_and_everything_works_to_the_end"
         " process/confine:ports_below_1024_are_bound_first"
         " process/confine:a_capability_to_bind_goes_once_it_was_used", ""),
    "a filter lets through the system calls of a node alone, and everything works in it":
        ("process/confine:every_thread_is_in_it_and_can_gain_nothing"
         " process/demo:the_demo_runs_to_its_end_in_the_sandbox daemon/sandbox:what_a_node_needs_goes_on"
         " daemon/sandbox:what_only_an_intruder_does_ends_the_process", ""),
}

TABLES = {STRANGERS: STRANGER_RULES, MESH: MESH_RULES, POLICY: POLICY_RULES, HOSTILE: HOSTILE_RULES,
          PROCESS: PROCESS_RULES}
TEST = re.compile(r"^Test\(\s*\w+,\s*(\w+)|^    def test_(\w+)\(self", re.M)
WORD = re.compile(r"[a-z][a-z_]{4,}(?:\{[^{}]*\}[a-z_]*)?")  # of a format string, too


def counters():
    """All that any rule names."""
    return {name for rules in TABLES.values() for _, names in rules.values() for name in names.split()}


class Tree:
    def __init__(self, root):
        self.tests, self.texts = root / "tests", {}

    def file(self, where):
        folder, _, name = where.partition("/")
        for file in (f"test_{name}.c", f"test_{name}.py", f"fuzz_{name}.c", name):
            if (self.tests / folder / file).is_file():
                return self.tests / folder / file
        return None

    def text(self, file):
        if file not in self.texts:
            self.texts[file] = file.read_text("utf-8")
        return self.texts[file]

    def has(self, test):
        where, _, name = test.partition(":")
        file = self.file(where)
        if not file:
            return False
        if name:
            return any(name in found for found in TEST.findall(self.text(file)))
        corpus = self.tests / "fuzz" / "corpus" / where.partition("/")[2]
        return not file.name.startswith("fuzz_") or any(corpus.iterdir())

    def looks_at(self, tests, counter):
        for test in tests:
            file = self.file(test.partition(":")[0])
            words = WORD.findall(self.text(file)) if file and file.suffix == ".py" else ()
            if any(fnmatch.fnmatchcase(counter, re.sub(r"\{.*\}", "*", word)) for word in words):
                return True
        return False


def show():
    for title, rules in TABLES.items():
        print(f"{title}\n")
        for rule, (tests, names) in rules.items():
            print("\n      ".join([f"  {rule}", *tests.split(), *([f"counters: {names}"] if names else [])]))
        print()


def main():
    if not sys.argv[1:]:
        show()
        return 0
    tree, count, missing = Tree(pathlib.Path(sys.argv[1])), 0, 0
    for rules in TABLES.values():
        for rule, (tests, names) in rules.items():
            tests, count = tests.split(), count + 1
            gone = [f"no test {test}" for test in tests if not tree.has(test)]
            gone += [f"no test looks at {name}" for name in names.split() if not tree.looks_at(tests, name)]
            for what in gone:
                print(f"{what}, which held: {rule}")
            missing += len(gone)
    print(f"{count} rules, {missing} missing")
    return 1 if missing or not count else 0


if __name__ == "__main__":
    sys.exit(main())

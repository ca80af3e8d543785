#!/usr/bin/python3
"""rules - what forwarding must do in each odd case, and the tests that hold it to that.

A rule is a sentence and the names of tests: of Criterion, `Test(suite, NAME`, or of a process test,
`def test_NAME`. Who changes a rule finds here what shows it; who renames or drops a test is told
here which rule it held.

    rules.py ROOT    prints the rules that name a test which is not in the tree; 1 if there is any
    rules.py         prints all rules with their tests
"""
import pathlib
import re
import sys

NAMES = """How a client's words become a service"""
NAME_RULES = {
    "a name's case, its trailing dot and its port do not matter, wherever it is read":
        "canonical_form_is_as_the_table_says case_dot_and_port_never_matter names_are_canonical"
        " name_with_a_port_is_the_same_name the_file_knows_more_of_a_port",
    "an IPv4 or IPv6 literal names nobody: the default has it, or nobody":
        "addresses_are_no_names http_without_a_name_may_go_to_the_default tls_without_a_name_may_go_to_the_default"
        " without_a_name_the_default_takes_it_or_it_is_told_so",
    "*.x covers what is below x and not x; the name itself comes first, then the longest; * alone is no name":
        "the_name_itself_beats_a_wildcard_and_the_longest_beats_the_others wildcards_cover_what_is_below_them"
        " canonical_form_is_as_the_table_says",
    "HTTP/1.1 without Host is a 400; HTTP/1.0 without goes to the default, else 400":
        "http_1_1_needs_host_and_1_0_does_not requests_that_cannot_be_routed_are_told_why default_takes_what_names_nothing",
    "two Hosts, an empty or invalid one, a space before the colon, a folded line, a bare CR: 400":
        "two_hosts_are_refused empty_and_invalid_hosts_are_refused spaces_before_a_colon_are_refused"
        " folded_lines_are_refused bare_cr_is_refused_also_where_bare_lf_is_taken"
        " what_is_no_request_is_told_so_whatever_the_default",
    "a bare LF is a 400, but where the port was told to take it":
        "bare_lf_is_refused bare_lf_is_taken_where_it_was_asked_for",
    "the authority of an absolute target counts and not Host; the bytes pass unchanged":
        "an_absolute_target_wins_over_host only_the_host_of_the_head_counts curl_and_nginx",
    "HTTP is known by its grammar, never by a list of methods; OPTIONS * has a Host, too":
        "methods_are_recognised_by_grammar any_method_is_routed_by_its_host",
    "up to two empty lines come before a request, and are forwarded":
        "up_to_two_empty_lines_come_first only_the_host_of_the_head_counts",
    "the first request pins the connection: pipelined, changed Hosts, an upgrade, 100-continue":
        "what_follows_the_head_is_not_looked_at first_request_pins_the_connection_and_the_rest_follows_in_order"
        " connection_that_is_upgraded_carries_anything curl_posts_much_and_waits_for_100_where_it_is_asked",
    "a head grows up to its limit; above it is a 431":
        "what_is_undecided_at_the_limit_is_too_big a_head_above_the_limit_is_told_so"
        " requests_that_cannot_be_routed_are_told_why",
    "one deadline for all of a head, from accept: 408; who has not said where to is bounded per address":
        "a_slow_head_has_one_deadline_for_all_of_it a_head_that_does_not_end_is_told_so_in_time_however_slowly_it_comes"
        " clients_that_say_nothing_are_bounded_per_address clients_that_are_not_routed_yet_have_a_limit",
    "too few bytes to decide are waited for, whatever they are":
        "every_undecided_beginning_asks_for_more few_bytes_are_waited_for no_first_bytes_harm_the_node"
        " a_few_bytes_decide_nothing_until_the_client_says_that_they_are_all",
    "who connects and leaves without a byte is counted, and nobody is told":
        "who_leaves_without_a_byte_is_let_go_silently who_connects_and_says_nothing_is_closed_in_silence",
    "HTTP/2 without TLS goes to the default, its HEADERS are not waited for; else SETTINGS and GOAWAY":
        "http2_is_told_at_the_end_of_its_first_line http2_needs_its_first_line_alone http2_says_settings_and_goaway"
        " http2_with_prior_knowledge_is_asked_to_use_http1 http2_without_tls_goes_to_the_default",
    "a ClientHello is waited for to its end, over any number of segments":
        "a_hello_of_several_segments_is_waited_for name_is_found_however_it_is_cut"
        " a_name_is_found_however_its_bytes_are_cut",
    "and over any number of records, with nothing in between; a hello has a greatest length":
        "records_of_every_size_are_joined captured_hellos_in_records_of_every_size"
        " what_begins_as_tls_and_is_none_is_refused what_is_above_the_limit_is_told_at_its_length",
    "what begins as TLS and is none is a decode_error, and is not taken for something else":
        "what_begins_as_tls_and_is_none_is_refused tls_that_is_refused_stays_tls"
        " a_hello_that_cannot_be_read_is_a_decode_error",
    "no server name: the default, else unrecognized_name":
        "without_a_name_there_is_none tls_without_a_name_may_go_to_the_default tls_alerts",
    "an unknown server name: unrecognized_name, never somebody else's backend":
        "names_that_nobody_offers_are_not_recognized openssl_says_which_alert_it_was"
        " an_unknown_name_is_not_given_to_the_default",
    "a server name that is malformed, or two of them, is refused":
        "malformed_names_are_refused a_server_name_whose_lengths_disagree_is_refused two_server_names_are_refused"
        " lengths_beyond_the_message_are_refused_at_once",
    "an encrypted hello goes by its outer name":
        "an_encrypted_hello_goes_by_its_outer_name",
    "ALPN is passed through; only the first hello counts":
        "whatever_protocols_are_offered_the_name_counts what_follows_the_hello_is_not_looked_at"
        " what_is_agreed_within_tls_is_between_client_and_backend",
    "an SSLv2-style hello names nobody":
        "sslv2_style_hellos_name_nobody tls_without_a_name_may_go_to_the_default",
    "on a mapped port the backend is dialled at accept, and may speak first":
        "on_a_mapped_port_the_backend_may_speak_first first_words_of_the_server_arrive_whole_and_first"
        " a_server_speaks_first_locally a_server_speaks_first_to_the_side_that_dialled redis_cli_and_redis",
    "CONNECT reaches services only and needs a port; 200 without a length once the backend is up; more is data":
        "connect_takes_the_name_from_its_target a_tunnel_is_announced_once_the_backend_is_there connected_has_no_length"
        " nothing_but_services_is_ever_dialled tunnel_carries_to_the_service_whatever_port_is_said",
    "a PROXY header is believed from the port's networks only, and needed there; wrong or late ends it":
        "a_trusted_proxy_must_say_it_and_first nobody_elses_word_is_taken_for_who_a_client_is"
        " trusted_network_says_who_the_client_is_and_must header_from_anywhere_else_is_not_believed version_1_is_strict"
        " version_1_is_refused_above_107_bytes version_2_is_strict version_1_unknown_says_nothing"
        " version_2_without_addresses_that_count",
    "parsers take whole heads, single bytes, and each cut in two, and need linear time":
        "the_time_of_a_head_grows_with_its_bytes_alone the_time_of_a_hello_grows_with_its_bytes_alone"
        " names_in_what_programs_send",
}

WAYS = """Which backend, and what happens on the way"""
WAY_RULES = {
    "all owners of a name are kept: local first, then the fewest forwards, then a stable order":
        "a_local_backend_comes_first the_one_with_the_fewest_forwards_is_chosen"
        " local_rows_are_under_local_and_a_peers_namesake_stays_beside_them clients_are_spread_by_how_many_each_owner_has",
    "404 unknown, 503 with Retry-After without an owner, 502 refused, 504 in time, 503 draining or over a limit":
        "http_status_lines requests_that_cannot_be_routed_are_told_why no_owner_is_connected"
        " owners_that_cannot_carry_are_named_with_their_reason service_over_its_limit_turns_away_and_serves_those_it_has"
        " new_clients_are_refused_and_go_elsewhere",
    "what turns a HEAD away has no body": "the_answer_to_a_head_ends_with_its_own",
    "an answer arrives although there was more to read; it is waited for two seconds at most":
        "an_answer_arrives_although_the_client_had_more_to_say answer_arrives_though_the_client_still_sends"
        " who_goes_on_sending_after_the_answer_is_heard_for_two_seconds_at_most",
    "a backend that refuses: its next address, the next owner, three in all, within one budget":
        "the_second_address_is_dialled_when_the_first_refuses the_second_address_has_its_turn_while_the_first_is_silent"
        " a_refusal_lets_another_be_tried_and_three_at_most owner_whose_backend_refuses_costs_the_client_nothing"
        " own_backend_that_is_gone_leaves_the_client_to_the_owners"
        " request_with_a_body_is_carried_once_and_whole_by_the_second_owner",
    "what was sent and not answered is not sent again: 502 at once, or 504":
        "a_link_that_breaks_answers_at_once_and_what_was_sent_is_not_sent_again"
        " silence_after_bytes_were_sent_is_a_504 request_that_was_delivered_is_not_tried_again"
        " owner_that_dies_between_the_request_and_the_join_is_told_at_once",
    "a lost link, and nothing was sent: another owner at once":
        "a_link_that_breaks_lets_another_be_tried_if_no_byte_was_sent silence_lets_another_be_tried_if_no_byte_was_sent"
        " client_that_has_said_nothing_is_carried_elsewhere_right_after_a_loss",
    "DATA for what is cancelled, guessed, another's, late or joined already is closed and counted":
        "a_guessed_id_waits_in_vain another_sessions_id_is_nobodys one_id_is_joined_once"
        " data_needs_a_session_that_its_peer_dialled an_answer_after_the_end_is_for_nobody"
        " nobody_who_comes_for_it_ends_it_in_time guessed_data_connections_are_closed_and_counted",
    "DATA may come before its Forward; bytes behind its header belong to the stream":
        "data_may_come_before_its_forward what_comes_behind_the_header_reaches_the_client"
        " what_came_behind_the_header_follows_the_first_bytes first_words_of_the_server_arrive_whole_and_first",
    "a client that breaks off is cancelled, at the owner too; one that has ended its side waits on":
        "breaking_off_is_giving_up a_client_that_gives_up_is_cancelled a_cancel_resets_the_backend"
        " client_that_gives_up_while_pending_frees_the_backend ending_ones_side_is_no_giving_up_and_costs_nothing"
        " client_that_has_said_all_is_still_waiting",
    "a half-close passes behind the bytes, the other way goes on; silent, it is cut off, any byte extends it":
        "a_client_that_has_ended_gets_its_long_answer a_backend_that_has_ended_gets_the_rest_of_a_long_request"
        " half_closed_and_silent_it_is_cut_off_sooner half_closed_streams_live_as_long_as_bytes_come",
    "a reset passes behind what is held, as one; after an end in order it is an end":
        "what_was_said_before_a_reset_is_tried_first a_reset_of_the_client_is_one_to_the_backend"
        " a_reset_of_the_backend_is_one_to_the_client an_end_that_came_before_a_reset_counts"
        " a_whole_answer_reaches_the_client_although_the_backend_then_resets",
    "the loss of a link is not that of its streams; the loss of DATA is a reset both ways":
        "streams_of_the_dialler_outlive_the_session streams_of_the_listener_outlive_the_session"
        " streams_outlive_their_link data_connection_that_breaks_is_no_clean_end_for_either",
    "a byte marked urgent keeps its place, among the first words and later":
        "a_byte_marked_urgent_is_one_of_the_words a_byte_marked_urgent_keeps_its_place_in_the_stream",
    "behind bytes that were lost for want of memory nothing is passed on":
        "bytes_that_cannot_be_held_end_the_stream_and_none_follows",
    "who does not read for a while is not gone": "who_reads_nothing_for_a_while_gets_everything_afterwards",
    "who is silently gone is noticed":
        "who_stays_for_some_seconds_is_kept_alive_from_then_on streams_into_silence_end_and_new_clients_are_told_in_time",
    "what the owner's policy does not let a peer have is a 403 that names the rule; other rules cut off what runs":
        "a_client_is_told_403_and_by_which_rule no_data_connection_is_dialled_for_what_is_refused"
        " a_pending_forward_that_is_not_allowed_any_more_is_refused the_owner_cuts_off_what_is_not_allowed_any_more"
        " the_other_side_cuts_off_its_clients_of_a_peer_that_may_have_no_link what_is_still_allowed_goes_on"
        " a_forward_that_no_rule_allows_is_a_403_which_says_so other_rules_take_away_and_give_back_while_all_runs",
    "an owner serves its own names only: nothing goes in circles, and no address is asked for":
        "a_name_that_only_a_peer_offers_is_refused a_name_that_is_not_registered_here_is_refused"
        " nothing_but_services_is_ever_dialled",
    "a name that is withdrawn, an owner that drains: streams go on, new clients go elsewhere":
        "withdrawn_name_is_carried_no_more_and_its_streams_go_on changes_of_the_maps_touch_no_stream"
        " a_node_that_drains_serves_what_was_on_its_way_and_refuses_what_comes_later"
        " streams_finish_and_then_the_node_ends_with_0 drain_timeout_cuts_what_still_runs",
    "a service that is draining takes no new clients, here or from peers, at once; another owner has them, else 503":
        "a_local_service_that_is_draining_is_a_503 a_local_service_that_is_draining_is_chosen_by_nobody"
        " a_service_of_a_peer_that_is_draining_is_refused_by_it_at_once a_client_goes_to_another_owner_while_one_is_draining"
        " a_refusal_of_a_draining_owner_is_answered_by_another a_change_of_state_touches_no_client_that_is_joined"
        " one_service_that_drains_keeps_its_streams_and_new_clients_go_elsewhere",
    "an unhealthy backend is not chosen while another is there; when all look unhealthy one is still tried":
        "unhealthy_and_draining_entries_come_behind_those_that_are_neither an_unhealthy_backend_comes_after_others"
        " an_unhealthy_backend_is_not_chosen_while_another_is_there an_unhealthy_backend_is_tried_when_the_others_fail"
        " a_service_whose_backends_all_look_unhealthy_is_still_tried",
    "peers at one address are told apart":
        "two_peers_behind_one_address_never_overwrite_each_other two_peers_behind_one_address_keep_their_own_lists"
        " peers_at_one_address_are_two_owners",
    "a node that nobody can dial is reached and reaches, from hosts of their own":
        "node_that_cannot_be_dialled_is_reached_and_reaches",
    "Explain says candidates, choice and reasons before, during and after each fault":
        "ends_resets_and_bytes_are_no_failures_and_each_stream_counts_while_it_runs"
        " owner_that_is_killed_amid_a_stream_and_comes_back link_that_is_cut_amid_a_stream_and_comes_back"
        " backends_that_refuse_and_that_say_nothing_are_remembered_with_their_reason"
        " another_is_chosen_for_a_reason_that_is_told",
}

AGAIN = """What programs of this kind are known to do wrong, and this one does not"""
AGAIN_RULES = {
    "a few odd first bytes end the process": "no_first_bytes_harm_the_node",
    "maps are read while they change":
        "every_reading_is_of_one_moment_while_the_maps_change changes_of_the_maps_touch_no_stream",
    "one stream at a time on a link, a lock held while somebody is waited for":
        "streams_of_one_link_run_side_by_side_and_a_stuck_one_stops_none many_clients_of_the_dialler_are_carried_at_once",
    "only one direction of a link works":
        "the_side_that_dialled_reaches_the_other the_side_that_was_dialled_reaches_the_other",
    "the first end cuts the answer, the other end is never passed on":
        "client_that_ends_first_still_reads_the_whole_answer backend_that_ends_first_still_reads_all_that_the_client_says",
    "bytes are lost where one reader hands over to the next":
        "first_words_of_the_server_arrive_whole_and_first much_that_is_said_before_the_join_is_kept_in_order",
    "a name is sought in one read, in the body, by a list of methods":
        "name_is_found_however_it_is_cut only_the_host_of_the_head_counts any_method_is_routed_by_its_host",
    "any address is dialled, for any peer":
        "nothing_but_services_is_ever_dialled a_name_that_is_not_registered_here_is_refused"
        " a_certificate_speaks_for_nobody_else",
    "a name is taken over":
        "names_outside_the_globs_are_left_out_of_a_register_and_the_rest_lands"
        " local_rows_are_under_local_and_a_peers_namesake_stays_beside_them keys_sources_and_owners_are_as_documented",
    "DATA can be had by guessing": "guessed_data_connections_are_closed_and_counted",
    "CONNECT is open to all, and its success a lie":
        "nothing_but_services_is_ever_dialled owners_that_cannot_carry_are_named_with_their_reason",
    "a refusal is silence":
        "backend_that_refuses_is_told_at_once_and_one_that_says_nothing_in_time raw_clients_are_reset_and_not_ended",
    "a PROXY header is taken from anyone, and thrown away":
        "header_from_anywhere_else_is_not_believed backend_is_told_the_client_across_two_nodes_in_the_version_it_wants"
        " nginx_and_haproxy_behind_two_nodes_see_the_clients_address",
    "servers that speak first cannot be reached":
        "first_words_of_the_server_arrive_whole_and_first default_takes_what_names_nothing",
    "SIGTERM ends nothing, or everything":
        "streams_finish_and_then_the_node_ends_with_0 second_signal_ends_it_at_once without_clients_it_ends_within_two_seconds",
    "heads, clients, forwards, descriptors and memory have no bound":
        "a_head_above_the_limit_is_told_so clients_in_all_have_a_limit"
        " over_ingress_connections_the_next_is_closed_and_its_place_can_be_had_later"
        " one_address_has_its_share_and_another_its_own clients_that_are_being_brought_there_have_a_limit"
        " pending_forwards_have_a_limit forwards_of_one_service_have_a_limit failures_are_remembered_up_to_a_number"
        " without_descriptors_clients_are_turned_away_and_later_ones_served",
    "streams without a byte live for ever":
        "who_is_idle_is_cut_off_and_who_is_not_is_not streams_without_a_byte_are_ended_and_others_are_not",
    "the address is the identity":
        "two_peers_at_one_address_are_told_apart peers_at_one_address_are_two_owners",
    "colons part everything; no IPv6":
        "good_entries_are_read bad_entries_are_refused_with_the_reason backends_and_clients_may_be_ipv6"
        " a_port_without_a_host_takes_clients_of_both_families",
    "names stay after they went":
        "owner_that_is_lost_gets_nobody_while_another_is_there withdrawn_name_is_carried_no_more_and_its_streams_go_on",
    "a link needs services of one's own": "node_without_services_carries_clients",
    "names of hosts are resolved once, or where others wait for it":
        "a_listed_host_is_asked_for_again_and_moves listed_hosts_that_hang_do_not_hold_up_a_dial"
        " peer_that_moves_to_another_address_is_found_by_its_name",
    "a log line for every client":
        "clients_that_are_well_leave_no_line_in_the_log a_flood_of_clients_that_fail_is_summed_up_"
        "also_without_links_and_at_the_end",
    "counters lie, lengths are wrong":
        "what_passes_is_counted_at_each_node_and_each_client_ends_for_one_reason http_says_how_long_it_is_for_every_end",
    "splice everywhere, and no way back":
        "much_both_ways_at_once_arrives_whole_without_copies without_a_descriptor_for_a_pipe_bytes_are_copied",
    "a busy stream leaves no turn to others": "streams_without_end_leave_others_their_turn",
    "a slow reader fills the memory":
        "a_slow_reader_of_bulk_holds_its_sender_back client_that_does_not_read_holds_back_its_backend_and_nobody_else",
    "idle clients cost much, those that left leave something":
        "an_idle_relay_costs_less_than_a_kibibyte ten_thousand_idle_clients_cost_little_and_leave_nothing"
        " a_hundred_thousand_clients_leave_nothing",
    "a warm connection that died costs the client its request":
        "waiting_data_connections_that_died_cost_the_client_nothing broken_ones_of_the_dialler_cost_its_clients_nothing"
        " broken_ones_of_the_listener_cost_its_clients_nothing the_second_loss_is_told",
    "tried on loopback only": "bytes_pass_whole_over_a_wire_of_40_ms_that_loses_one_in_a_hundred",
}

TABLES = {NAMES: NAME_RULES, WAYS: WAY_RULES, AGAIN: AGAIN_RULES}
TEST = re.compile(r"^Test\(\s*\w+,\s*(\w+)|^    def test_(\w+)\(self", re.M)


def tests_of(root):
    """The name of every test in the tree."""
    files = [*(root / "tests").rglob("test_*.c"), *(root / "tests").rglob("test_*.py")]
    return {one or other for file in files for one, other in TEST.findall(file.read_text("utf-8"))}


def show():
    for title, rules in TABLES.items():
        print(f"{title}\n")
        for rule, tests in rules.items():
            print(f"  {rule}")
            for test in tests.split():
                print(f"      {test}")
        print()


def main():
    if not sys.argv[1:]:
        show()
        return 0
    there = tests_of(pathlib.Path(sys.argv[1]))
    count, missing = 0, 0
    for rules in TABLES.values():
        for rule, tests in rules.items():
            count += 1
            for test in set(tests.split()) - there:
                print(f"no test {test}, which held: {rule}")
                missing += 1
    print(f"{count} rules, {len(there)} tests in the tree, {missing} missing")
    return 1 if missing or not there else 0


if __name__ == "__main__":
    sys.exit(main())

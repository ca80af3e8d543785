/* meshcat_help - what --help says. */
#include "meshcat.h"

static const char exits[] =
    "Exit codes:\n"
    "  0   found                         5   not a meshd, or no wire version in common\n"
    "  1   nothing matched; diff: differ 6   not allowed, or a certificate was refused\n"
    "  2   the command line is wrong     7   only some of it found or answered\n"
    "  3   cannot connect                8   the answer, or a file of ca, could not be written\n"
    "  4   timed out                     64+n  the node's status n, e.g. 67 INVALID_ARGUMENT\n";

static const char formats[] =
    "Formats:\n"
    "  table   columns, for people (the default)\n"
    "  json    one document; errors are JSON too, on stderr\n"
    "  jsonl   a document per line, one for each row, link, route, ping, event ...; introspect's\n"
    "          have a member map, node's a member kind\n"
    "  text    the node's answer as protobuf's text format (the default of call)\n"
    "  raw     the node's answer as it came, packed; pages one after the other\n"
    "  hex, quoted, ascii   the same bytes as nngcat shows them\n";

static const char examples[] =
    "Examples:\n"
    "  meshcat services                          what the node on this host knows\n"
    "  meshcat services --name 'web*' --format jsonl | jq -r .backend_addr\n"
    "  meshcat lookup web db --dial tcp://10.0.0.7:7400\n"
    "  meshcat watch 'web*'                      every change from now on\n"
    "  meshcat diff 10.0.0.7:7400 10.0.0.8:7400  whether two nodes agree\n"
    "  meshcat offer web 127.0.0.1:8080 --ttl 60\n"
    "  meshcat offer api 127.0.0.1:8081 --check http:/healthz\n"
    "  meshcat ca init && meshcat ca issue n1 n2 n3   all that three nodes need to trust each "
    "other\n"
    "  meshcat call Lookup -D 'names: \"web\"'    any method, by hand\n";

static const char target[] =
    "Without --dial, -x and -l the node is that of MESHD_ADDR; else the one whose socket lies in\n"
    "${RUNTIME_DIRECTORY:-${XDG_RUNTIME_DIR:-/run}/meshd}/<peer id>/meshd.sock, for PEER_NAME or "
    "the\n"
    "host's name, or the only one there, or in /run/meshd; else tcp://127.0.0.1:7400.\n"
    "At tls:// both sides show a certificate of one CA; PEER_TLS_CA, PEER_TLS_CERT and "
    "PEER_TLS_KEY\n"
    "are the files when --cacert, -E and --key are not given.\n";

void help_overall(FILE *out)
{
    fputs("meshcat asks a meshd node what it knows, and offers services through it; it also makes\n"
          "certificates for a mesh.\n\n"
          "Usage: meshcat [options] COMMAND [words] [options]\n\nCommands:\n",
          out);
    for (const struct meshcat_cmd *cmd = meshcat_cmds; cmd->name; cmd++) {
        char left[40];

        snprintf(left, sizeof(left), "%s %s", cmd->name, cmd->args);
        fprintf(out, "  %-22s %s\n", left, cmd->what);
    }
    fputs("\nOptions of all commands:\n", out);
    opts_help(out, CMD_ALL, true);
    fputs("\nOptions of some commands (meshcat COMMAND --help):\n", out);
    opts_help(out, CMD_ALL, false);
    fputs("\nLong options may be abbreviated and take their value after =, : or as the next "
          "word.\n\n",
          out);
    fputs(formats, out);
    fputc('\n', out);
    fputs(target, out);
    fputc('\n', out);
    fputs(exits, out);
    fputc('\n', out);
    fputs(examples, out);
}

void help_command(FILE *out, const struct meshcat_cmd *cmd)
{
    fprintf(out, "Usage: meshcat %s%s%s [options]\n\n%s\n\nOptions:\n", cmd->name,
            cmd->args[0] ? " " : "", cmd->args, cmd->more);
    opts_help(out, cmd->bit, false);
    opts_help(out, cmd->bit, true);
    fputc('\n', out);
    fputs(formats, out);
    fputc('\n', out);
    fputs(exits, out);
}

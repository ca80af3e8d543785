/* fuzz_meshcat_opts - the command line of meshcat, its words each ended by a zero byte: options
 * that are within their bounds, or one complaint that ends. */
#include <stdlib.h>
#include <string.h>
#include "meshcat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ARGS_MAX 32

static void check(int condition)
{
    if (!condition)
        abort();
}

static bool is_word(const char *text, char *const *argv, int argc)
{
    for (int i = 1; i < argc; i++)
        if (argv[i] == text)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[] = "meshcat", *argv[ARGS_MAX + 1] = {name}, *given[ARGS_MAX + 1];
    struct meshcat_complaint complaint;
    struct meshcat_opts opts;
    int argc = 1, r;
    char *copy = calloc(1, size + 1);

    check(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    for (char *word = copy; word < copy + size && argc < ARGS_MAX; word += strlen(word) + 1)
        argv[argc++] = word;
    memcpy(given, argv, sizeof(given));
    r = opts_parse(argc, argv, &opts, &complaint);
    check(r == 0 || r == EXIT_USAGE);
    check(memchr(complaint.text, '\0', sizeof(complaint.text)) != NULL);
    check((r == 0) == (complaint.text[0] == '\0'));
    if (r == 0) {
        check(opts.help || opts.version || opts.cmd != NULL);
        check(opts.n_args < (size_t)argc && opts.timeout_ms > 0 && opts.recv_max > 0);
        for (size_t i = 0; i < opts.n_args; i++)
            check(is_word(opts.args[i], given, argc));
        if (opts.cmd && !opts.help && !opts.version)
            check(opts.n_args >= opts.cmd->args_least && opts.n_args <= opts.cmd->args_most);
    }
    free(copy);
    return 0;
}

/* fuzz_config - a YAML file, or (after a zero byte) variables and flags, each ended by a zero byte.
 *
 * What is accepted must be printed as YAML that is accepted and printed the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"

#define ARGS_MAX 32

static FILE *nowhere; /* what is told; never closed */

static char *print(const struct config *config, size_t *out_len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, out_len);

    if (!out)
        abort();
    config_print(config, out);
    fclose(out);
    return text;
}

static struct config *read_yaml(const void *data, size_t len)
{
    struct config_reading r;
    struct config *config = NULL;

    if (config_reading_init(&r, nowhere) < 0)
        abort();
    config_yaml(&r, "fuzz.yaml", data, len);
    config_reading_finish(&r, NULL, &config);
    config_reading_fini(&r);
    return config;
}

static bool begins_with(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* A flag that would open a file of this machine: -c, --config, --check, also shortened. */
static bool opens_file(const char *arg)
{
    return arg[0] == '-' && (arg[1] != '-' || begins_with(arg, "--c"));
}

static struct config *read_words(char *text, size_t len)
{
    static const char *const variables[] = {
        "PEER_NAME=",         "PEER_BIND_ADDR=",  "REMOTE_PEER_ADDR=",
        "SERVICE_ADDR=",      "INGRESS_ADDR=",    "PEER_INSECURE=",
        "PEER_TLS_CA=",       "PEER_TLS_CERT=",   "PEER_TLS_KEY=",
        "PEER_TLS_CRL=",      "ADMIN_ADDR=",      "LOG_LEVEL=",
        "RUNTIME_DIRECTORY=", "XDG_RUNTIME_DIR=", NULL,
    };
    char name[] = "meshd", *argv[ARGS_MAX + 1] = {name};
    struct config *config = NULL;
    enum config_action action;
    int argc = 1, i;

    clearenv();
    for (char *word = text; word < text + len && argc < ARGS_MAX; word += strlen(word) + 1) {
        for (i = 0; variables[i] && !begins_with(word, variables[i]); i++)
            ;
        if (variables[i])
            putenv(word);
        else if (!opens_file(word))
            argv[argc++] = word;
    }
    config_load(argc, argv, nowhere, NULL, &action, &config);
    clearenv();
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config, *read;
    char *copy = NULL, *text, *again;
    size_t len, again_len;

    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    if (!nowhere)
        abort();
    if (size > 0 && data[0] == 0) {
        copy = calloc(1, size);
        if (!copy)
            abort();
        memcpy(copy, data + 1, size - 1);
        config = read_words(copy, size - 1);
    } else {
        config = read_yaml(data, size);
    }
    if (config) {
        text = print(config, &len);
        read = read_yaml(text, len);
        if (!read)
            abort();
        again = print(read, &again_len);
        if (len != again_len || memcmp(text, again, len) != 0)
            abort();
        free(again);
        free(text);
        config_free(read);
    }
    config_free(config);
    free(copy);
    return 0;
}

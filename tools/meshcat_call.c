/* meshcat_call - any method of the service, with a request that was written by hand. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "meshcat.h"
#include "meshcat_ask.h"
#include "meshcat_format.h"
#include "wire/check.h"
#include "wire/frame.h"
#include "wire/text.h"

#define PREFIX "/meshd.v1.Registry/"
#define REQUEST_MAX 67108864u /* bytes that are read; as text a request is longer than packed */

/* ---- the method ---- */

/* The method that the word names; or NULL after an error. */
static const ProtobufCMethodDescriptor *method_of(const struct meshcat_opts *opts)
{
    const ProtobufCServiceDescriptor *service = &meshd__v1__registry__descriptor;
    const ProtobufCMethodDescriptor *method;
    const char *name = opts->args[0];
    char names[256] = "";
    size_t at = 0;

    if (strncmp(name, PREFIX, strlen(PREFIX)) == 0)
        name += strlen(PREFIX);
    method = protobuf_c_service_descriptor_get_method_by_name(service, name);
    if (method && strcmp(name, "Watch") == 0) {
        show_error(opts, EXIT_USAGE, -1, "Watch is a stream and no call; use meshcat watch");
        return NULL;
    }
    if (method)
        return method;
    for (unsigned i = 0; i < service->n_methods && at < sizeof(names); i++) {
        if (strcmp(service->methods[i].name, "Watch") != 0)
            at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", at ? ", " : "",
                                   service->methods[i].name);
    }
    show_error(opts, EXIT_USAGE, -1, "there is no method '%s'; there are %s", opts->args[0], names);
    return NULL;
}

/* ---- the request ---- */

/* The whole file; 0, or the exit code of an error that was told. */
static int read_file(const struct meshcat_opts *opts, char **out_text, size_t *out_len)
{
    bool standard = strcmp(opts->file, "-") == 0;
    FILE *file = standard ? stdin : fopen(opts->file, "rb");
    size_t len = 0, cap = 0, n = 0;
    char *text = NULL;
    int error = 0;

    if (!file)
        return show_error(opts, EXIT_USAGE, -1, "cannot read %s: %s; check the path", opts->file,
                          strerror(errno));
    do {
        if (len == cap) {
            cap = cap ? 2 * cap : 4096;
            text = must_realloc(text, cap);
        }
        errno = 0;
        n = fread(text + len, 1, cap - len, file);
        len += n;
    } while (n > 0 && len <= REQUEST_MAX);
    if (ferror(file))
        error = errno ? errno : EIO;
    if (!standard)
        fclose(file);
    *out_text = text;
    *out_len = len;
    if (error)
        return show_error(opts, EXIT_USAGE, -1, "cannot read %s: %s; check the path", opts->file,
                          strerror(error));
    if (len > REQUEST_MAX)
        return show_error(opts, EXIT_USAGE, -1, "%s is longer than a request may be (64 MiB)",
                          opts->file);
    return 0;
}

static int make_request(const struct meshcat_opts *opts, const ProtobufCMessageDescriptor *type,
                        struct arena *arena, ProtobufCMessage **out)
{
    CLEANUP(free_textp) char *text = NULL;
    struct text_error error;
    size_t len = 0;
    int code = 0, r;

    if (opts->file)
        code = read_file(opts, &text, &len);
    else if (opts->data)
        text = must_dup(opts->data), len = strlen(text);
    else
        text = must_dup("");
    if (code)
        return code;
    if (opts->binary_input)
        r = wire_unpack(type, (const uint8_t *)text, len, arena, out);
    else
        r = text_parse(type, text, len, arena, out, &error);
    if (r == -EBADMSG && !opts->binary_input)
        return show_error(opts, EXIT_USAGE, -1, "the request, line %zu, column %zu: %s", error.line,
                          error.column, error.text);
    if (r == -ENOMEM)
        out_of_memory();
    if (r < 0)
        return show_error(opts, EXIT_USAGE, -1,
                          "the request is no %s%s; see mesh.proto, and --input text|binary",
                          type->short_name, r == -E2BIG ? " that a node would take" : "");
    return 0;
}

/* ---- a request for others ---- */

static int dump(const struct meshcat_opts *opts, const char *method,
                const ProtobufCMessage *request)
{
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    bool standard = strcmp(opts->dump, "-") == 0, failed;
    CLEANUP(free_textp) char *bytes = NULL;
    char name[128];
    size_t len;
    FILE *file;

    snprintf(name, sizeof(name), PREFIX "%s", method);
    header.method = name;
    header.call_id = 1;
    header.deadline_ms = opts->timeout_ms;
    header.wire_version = WIRE_VERSION_MAX;
    len = frame_size(&header.base, request);
    bytes = must_alloc(len);
    frame_pack(&header.base, request, (uint8_t *)bytes);
    if (standard) {
        fwrite(bytes, 1, len, stdout); /* a failure stays in ferror(stdout) */
        return EXIT_FOUND;
    }
    file = fopen(opts->dump, "wb");
    failed = !file || fwrite(bytes, 1, len, file) != len;
    if (file && fclose(file) != 0)
        failed = true;
    if (failed)
        return show_error(opts, EXIT_LOCAL, -1, "cannot write %s: %s; choose another file",
                          opts->dump, strerror(errno));
    return EXIT_FOUND;
}

/* ---- the call ---- */

static void show_reply(const struct meshcat_opts *opts, const struct call_reply *reply)
{
    if (format_is_message(opts)) {
        format_message(opts, reply->message, reply->packed, reply->packed_len);
    } else if (!opts->silent) {
        CLEANUP(json_decrefp) json_t *json = format_json(reply->message);

        format_line(json, 0);
    }
}

static int call(const struct meshcat_opts *opts, const char *method,
                const ProtobufCMessage *request)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    int code = session_begin(&s, opts, false);

    if (code == 0)
        code = ask_any(&s, method, request, &reply);
    if (code)
        return code;
    if (reply->message) /* some come beside a status other than OK */
        show_reply(opts, reply);
    if (opts->verbose)
        show_note(opts, "%s answers %s", s.url, status_name(reply->status));
    return reply->status == STATUS_OK ? EXIT_FOUND : tell_status(&s, reply);
}

int run_call(const struct meshcat_opts *opts)
{
    const ProtobufCMethodDescriptor *method = method_of(opts);
    CLEANUP(arena_fini) struct arena arena;
    ProtobufCMessage *request = NULL;
    int code;

    arena_init(&arena);
    if (!method)
        return EXIT_USAGE;
    code = make_request(opts, method->input, &arena, &request);
    if (code)
        return code;
    return opts->dump ? dump(opts, method->name, request) : call(opts, method->name, request);
}

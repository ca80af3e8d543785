/* meshcat_format - see meshcat_format.h. The bytes look as nngcat's do: a line in quotes for each
 * message with hex and quoted, and nothing added with raw and ascii. */
#include "meshcat_format.h"
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "wire/json.h"
#include "wire/text.h"

bool format_is_json(const struct meshcat_opts *opts)
{
    return opts->format == FORMAT_JSON || opts->format == FORMAT_JSONL;
}

bool format_is_message(const struct meshcat_opts *opts) { return opts->format >= FORMAT_TEXT; }

/* ---- messages ---- */

static bool printable(uint8_t c) { return c >= 0x20 && c < 0x7f; }

static void print_hex(const uint8_t *data, size_t len)
{
    putchar('"');
    for (size_t i = 0; i < len; i++)
        printf("\\x%02x", data[i]);
    fputs("\"\n", stdout);
}

static void print_quoted(const uint8_t *data, size_t len)
{
    static const char letters[] = "nrt\"\\", bytes[] = "\n\r\t\"\\";

    putchar('"');
    for (size_t i = 0; i < len; i++) {
        const char *special = data[i] ? strchr(bytes, data[i]) : NULL;

        if (special)
            printf("\\%c", letters[special - bytes]);
        else if (printable(data[i]))
            putchar(data[i]);
        else
            printf("\\x%02x", data[i]);
    }
    fputs("\"\n", stdout);
}

static void print_text(const ProtobufCMessage *message)
{
    CLEANUP(free_textp) char *text = NULL;
    size_t len;

    if (text_print(message, &text, &len) < 0)
        out_of_memory();
    fwrite(text, 1, len, stdout);
}

void format_message(const struct meshcat_opts *opts, const ProtobufCMessage *message,
                    const uint8_t *data, size_t len)
{
    if (opts->silent)
        return;
    switch (opts->format) {
    case FORMAT_TEXT:
        print_text(message);
        return;
    case FORMAT_RAW:
        fwrite(data, 1, len, stdout);
        return;
    case FORMAT_HEX:
        print_hex(data, len);
        return;
    case FORMAT_QUOTED:
        print_quoted(data, len);
        return;
    case FORMAT_ASCII:
        for (size_t i = 0; i < len; i++)
            putchar(printable(data[i]) ? data[i] : '.');
        return;
    case FORMAT_TABLE:
    case FORMAT_JSON:
    case FORMAT_JSONL:
        return; /* what they mean, not as they are */
    }
}

/* ---- JSON ---- */

json_t *format_json(const ProtobufCMessage *message)
{
    json_t *json = wire_json(message);

    if (!json)
        out_of_memory();
    return json;
}

void format_line(const json_t *json, size_t flags)
{
    /* ASCII only: no byte of an answer can steer a terminal. Failures show in ferror(stdout). */
    json_dumpf(json, stdout, flags | JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
}

/* config: what is printed is read back the same, and the example names everything. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "daemon/config_parts.h"
#include "daemon/config_support.h"

static uint64_t rng;

static uint64_t draw(uint64_t n) /* splitmix64, below n */
{
    uint64_t z = rng += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % n;
}

static void seed(void)
{
    const char *given = getenv("MESHD_TEST_SEED");

    rng = given ? strtoull(given, NULL, 10) : random_u64();
    fprintf(stderr, "MESHD_TEST_SEED=%" PRIu64 "\n", rng);
}

static void draw_word(char *out, size_t max, const char *alphabet)
{
    size_t len = 1 + draw(max);

    for (size_t i = 0; i < len; i++)
        out[i] = alphabet[draw(strlen(alphabet))];
    out[len] = '\0';
}

/* Any valid text of a single value; the sizes that must fit each other keep their defaults. */
static bool draw_value(const struct setting *s, char out[CONFIG_TEXT_MAX])
{
    static const char *const binds[] = {"127.0.0.9", "[::1]", "", "[::ffff:10.0.0.1]",
                                        "[2001:db8::1]"};
    uint64_t value = s->most ? s->least + draw(s->most - s->least + 1) : 0;
    size_t n = 0;

    if (s == &settings[SETTING_INSECURE] || s == &settings[SETTING_HEARTBEAT] ||
        s == &settings[SETTING_PEER_TIMEOUT] || s == &settings[SETTING_LIMIT_message_bytes] ||
        s == &settings[SETTING_LIMIT_gate_buffer_bytes] ||
        s == &settings[SETTING_LIMIT_link_queue_bytes] || s == &settings[SETTING_LIMIT_peers])
        return false;
    if (s->type == &type_peer_id) {
        draw_word(out, 60, "abzAZ09._-");
        out[0] = 'p'; /* neither . nor .. */
    } else if (s->type == &type_bind) {
        snprintf(out, CONFIG_TEXT_MAX, "%s:%u", binds[draw(5)], (unsigned)draw(65536));
    } else if (s->type == &type_admin) {
        snprintf(out, CONFIG_TEXT_MAX, draw(3) ? "%s:%u" : "off", binds[draw(5)],
                 (unsigned)draw(65536));
    } else if (s->type == &type_bool) {
        strcpy(out, draw(2) ? "true" : "false");
    } else if (s->type == &type_word) {
        while (s->words[n])
            n++;
        strcpy(out, s->words[draw(n)]);
    } else if (s->type == &type_duration && value % 1000 && draw(2) && value > 1000) {
        snprintf(out, CONFIG_TEXT_MAX, "%" PRIu64 "s", value / 1000);
    } else if (s->type == &type_duration) {
        snprintf(out, CONFIG_TEXT_MAX, "%" PRIu64 "ms", value);
    } else if (s->type == &type_number) {
        snprintf(out, CONFIG_TEXT_MAX, "%" PRIu64, value);
    } else if (s->type == &type_file) {
        draw_word(out, 80, "ab \"\\'#:&*!{}[]%~/.,-");
    } else if (s->type == &type_dir) {
        strcpy(out, "/r");
        draw_word(out + 2, 80, "ab \"\\'#:&*!{}[]%~/.,-");
    } else if (s->type == &type_user) {
        strcpy(out, draw(2) ? "nobody" : "root:daemon");
    } else if (s->type == &type_group) {
        strcpy(out, draw(2) ? "daemon" : "");
    } else if (s->type == &type_mode) {
        strcpy(out, draw(2) ? "0660" : "777");
    }
    return true;
}

/* The n-th entry of a list; which of its fields it has is drawn, and it is valid. */
static void draw_entry(struct config_reading *r, const struct setting *s, size_t n,
                       const struct where *where)
{
    static const char *const hosts[] = {"", "*:", "127.0.0.1:", "[2001:DB8::1]:", "[::]:"};
    static const char *const nets[] = {"10.0.0.0/8", "10.0.0.0/8,fd00::/8 , ::1",
                                       "0.0.0.0/0,::/0,::ffff:0:0/97,::ffff:ffff"};
    static const char *const words[] = {"off", "v1", "v2"};
    static const char *const globs[] = {"*", "edge-?*,@local", "a , b,@anonymous,C_d.e"};
    static const char *const names[] = {"*", "web , *.example.com,a?c-_1"};
    char text[CONFIG_TEXT_MAX], word[64];
    const char *texts[LIST_FIELDS_MAX] = {text};
    void *item = config_entry_begin(r, s);
    bool good = true;

    draw_word(word, 20, "abXY09-_");
    switch (s->list->id) {
    case LIST_SERVICES:
        snprintf(text, sizeof(text), "%s%zu", word, n);
        texts[1] = "[2001:db8::2]:7";
        texts[2] = draw(2) ? words[draw(3)] : NULL;
        break;
    case LIST_INGRESS:
        snprintf(text, sizeof(text), "%s%zu", hosts[draw(5)], draw(2) ? n : 0);
        texts[1 + draw(2)] = draw(2) ? word : NULL;
        texts[3] = draw(2) ? nets[draw(3)] : NULL;
        texts[4] = draw(2) ? (draw(2) ? "true" : "false") : NULL;
        break;
    case LIST_POLICY:
        snprintf(text, sizeof(text), "%s%zu", word, n);
        texts[1] = globs[draw(3)];
        for (unsigned i = 2; i < LIST_FIELDS_MAX; i++)
            texts[i] = !draw(2) ? NULL : s->list->many & 1u << i ? names[draw(2)] : "true";
        break;
    default:
        snprintf(text, sizeof(text), draw(2) ? "host-%zu.example.:%zu" : "[::%zu]:%zu", n, n);
        texts[1] = draw(2) ? word : NULL;
    }
    for (unsigned i = 0; i < LIST_FIELDS_MAX; i++)
        good &= !texts[i] || config_entry_field(r, s, item, i, texts[i], where);
    config_entry_end(r, s, item, good, where);
}

static struct config *draw_config(void)
{
    static const struct where where = {.kind = WHERE_FLAG, .name = "drawn"};
    struct config_reading r;
    char text[CONFIG_TEXT_MAX], *err_text = NULL;
    struct config *config = NULL;
    size_t size, n;
    FILE *err = open_memstream(&err_text, &size);
    bool tls = draw(2);

    cr_assert_eq(config_reading_init(&r, err), 0);
    config_set(&r, &settings[SETTING_INSECURE], "true", &where);
    config_set(&r, &settings[SETTING_PEER_NAME], "n1", &where);
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        bool drawn = s->type == &type_file ? tls : draw(2);

        if (!s->list && drawn && draw_value(s, text))
            config_set(&r, s, text, &where);
        for (n = s->list ? draw(5) : 0; n > 0; n--)
            draw_entry(&r, s, n, &where);
        if (s->list)
            config_list_end(&r, s);
    }
    n = (size_t)config_reading_finish(&r, NULL, &config);
    fclose(err);
    cr_assert_eq((int)n, 0, "%s", err_text);
    free(err_text);
    config_reading_fini(&r);
    return config;
}

Test(config_print, what_is_printed_is_read_back_the_same)
{
    seed();
    for (int i = 0; i < 300; i++) {
        struct config *drawn = draw_config(), *read;
        char *text = config_printed(drawn), *again;

        read = load_good(LOAD(.yaml = text, .env = {"PEER_NAME="}, .flags = {"--check"}));
        config_expect_same(drawn, read);
        again = config_printed(read);
        cr_expect_str_eq(text, again);
        free(text);
        free(again);
        config_free(drawn);
        config_free(read);
    }
}

Test(config_print, the_defaults_are_printed_so)
{
    struct config *c = load_good(LOAD(.flags = {"--peer", "h:1", "--service", "w:[::1]:2"}));
    char *text = config_printed(c), *limits = strstr(text, "limits:\n");

    cr_assert(limits);
    *limits = '\0';
    cr_expect_str_eq(text, "peer_name: \"n1\"\n"
                           "bind: \"127.0.0.1:7400\"\n"
                           "insecure: false\n"
                           "tls:\n"
                           "  ca: \"\"\n"
                           "  cert: \"\"\n"
                           "  key: \"\"\n"
                           "  crl: \"\"\n"
                           "  offload: false\n"
                           "peers:\n"
                           "  - address: \"h:1\"\n"
                           "services:\n"
                           "  - name: \"w\"\n"
                           "    backend: \"[::1]:2\"\n"
                           "ingress: []\n"
                           "policy: []\n"
                           "admin:\n"
                           "  bind: off\n"
                           "workers: 0\n"
                           "runtime_dir: \"/run/meshd/n1\"\n"
                           "socket_mode: 0600\n"
                           "socket_group: \"\"\n"
                           "user: \"\"\n"
                           "sandbox: true\n"
                           "core_dumps: false\n"
                           "log:\n"
                           "  level: info\n"
                           "  format: text\n"
                           "  maps: full\n"
                           "  forwards: errors\n"
                           "  timestamps: false\n"
                           "timing:\n"
                           "  heartbeat: 3s\n"
                           "  peer_timeout: 30s\n"
                           "  dial_timeout: 5s\n"
                           "  open_timeout: 10s\n"
                           "  call_timeout: 5s\n"
                           "  route_timeout: 10s\n"
                           "  idle_timeout: 10m\n"
                           "  half_close_timeout: 5m\n"
                           "  drain_timeout: 30s\n");
    free(text);
    config_free(c);
}

static char *example(void)
{
    char *text = calloc(1, CONFIG_FILE_MAX);
    FILE *file = fopen(MESHD_EXAMPLE, "r");

    cr_assert(text && file && fread(text, 1, CONFIG_FILE_MAX - 1, file) > 0);
    fclose(file);
    return text;
}

Test(config_print, the_example_is_the_defaults)
{
    char *text = example();
    struct config *c = load_good(LOAD(.yaml = text)), *defaults = load_good(LOAD(0));

    config_expect_same(c, defaults);
    config_free(c);
    config_free(defaults);
    free(text);
}

Test(config_print, the_example_sets_everything_once_its_marks_are_taken_away)
{
    struct config_reading r;
    char *text = example(), *to = text, *err_text = NULL;
    struct config *config;
    size_t size;
    FILE *err = open_memstream(&err_text, &size);
    int result;

    /* "#peer_name: …" is a setting, "# words" and "#" alone are comments. */
    for (const char *from = text; *from; from++) {
        bool mark = *from == '#' && (from == text || from[-1] == '\n') && from[1] != '\n' &&
                    !(from[1] == ' ' && from[2] != ' ');

        if (!mark || (from[1] == ' ' && from[3] == ' ' && from[4] == ' ' && from[5] == ' '))
            *to++ = *from;
    }
    *to = '\0';
    cr_assert_eq(config_reading_init(&r, err), 0);
    config_yaml(&r, "meshd.yaml", text, strlen(text));
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        if (s->list)
            cr_expect_gt(r.lists[s->list->id].n, 0u, "%s has no entries", s->key);
        else
            cr_expect_eq(r.where[s - settings].kind, WHERE_FILE, "%s is not there", s->key);
    }
    result = config_reading_finish(&r, NULL, &config);
    fclose(err);
    cr_expect_eq(result, 0, "%s", err_text);
    if (result == 0)
        config_free(config);
    config_reading_fini(&r);
    free(err_text);
    free(text);
}

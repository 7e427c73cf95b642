/* Takes long strings out of a line before it is parsed: the texts of an object are found and
 * decoded here, several times faster than by the parser, which then gets the line with "" in their
 * place and sees to all the rest. Only what is certainly a string as the parser would read it is
 * taken; at anything else, be it an error or just unusual, the parser gets the line as it is. */
#include "data/pf_text.h"

#if PF_HAVE_JSON

static const char *const fields[PF_TEXT_TAKEN] = {"prompt", "completion", "chosen", "rejected"};

typedef struct {
    const unsigned char *s;
    int64_t n, at;
} cursor;

/* The byte at the cursor; 0 at the end. */
static unsigned char here(const cursor *c) { return c->at < c->n ? c->s[c->at] : 0; }

static void skip_blank(cursor *c)
{
    while (here(c) == ' ' || here(c) == '\t' || here(c) == '\r')
        c->at++;
}

/* From a quote to behind the string; false where it does not end. */
static bool skip_string(cursor *c)
{
    for (c->at++; c->at < c->n; c->at++) {
        if (c->s[c->at] == '"') {
            c->at++;
            return true;
        }
        c->at += c->s[c->at] == '\\';
    }
    return false;
}

static bool skip_value(cursor *c)
{
    int64_t depth = 0;
    do {
        unsigned char byte = here(c);
        if (byte == '"') {
            if (!skip_string(c))
                return false;
            continue;
        }
        if (c->at >= c->n)
            return false;
        if (byte == '{' || byte == '[')
            depth++;
        else if (byte == '}' || byte == ']')
            depth--;
        else if (depth == 0) /* a number or a word */
            while (c->at + 1 < c->n && strchr(",}] \t\r", c->s[c->at + 1]) == NULL)
                c->at++;
        c->at++;
    } while (depth > 0);
    return depth == 0;
}

/* Four hexadecimal digits; -1: they are not. */
static int32_t hex(const cursor *c, int64_t at)
{
    int32_t value = 0;
    if (c->n - at < 4)
        return -1;
    for (int64_t i = at; i < at + 4; i++) {
        unsigned char b = c->s[i], lower = b | 0x20;
        if (b >= '0' && b <= '9')
            value = value << 4 | (b - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value << 4 | (lower - 'a' + 10);
        else
            return -1;
    }
    return value;
}

static char *put_character(char *to, int32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    return to;
}

/* From a backslash to behind the escape; NULL: not one that the parser takes. What it stands for is
 * never longer than itself. */
static char *take_escape(cursor *c, char *to)
{
    static const char from[] = "\"\\/bfnrt", gives[] = "\"\\/\b\f\n\r\t";
    c->at++;
    unsigned char byte = here(c);
    const char *plain = byte != 0 ? strchr(from, byte) : NULL;
    if (plain != NULL) {
        c->at++;
        *to++ = gives[plain - from];
        return to;
    }
    int32_t code = byte == 'u' ? hex(c, c->at + 1) : -1;
    if (code < 0 || (code >= 0xdc00 && code <= 0xdfff))
        return NULL;
    c->at += 5;
    if (code >= 0xd800 && code <= 0xdbff) {
        bool pair = here(c) == '\\' && c->n - c->at > 1 && c->s[c->at + 1] == 'u';
        int32_t low = pair ? hex(c, c->at + 2) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return NULL;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        c->at += 6;
    }
    return put_character(to, code);
}

/* From a quote to behind the string, which goes to `to`; *n bytes. False: see take_escape. */
static bool take_string(cursor *c, char *to, int64_t *n)
{
    const char *const start = to;
    for (c->at++; here(c) != '"';) {
        int64_t from = c->at;
        while (c->at < c->n && c->s[c->at] >= ' ' && c->s[c->at] != '"' && c->s[c->at] != '\\')
            c->at++;
        memcpy(to, c->s + from, (size_t)(c->at - from));
        to += c->at - from;
        if (here(c) == '"')
            break;
        if (here(c) != '\\')
            return false; /* a control character, or the end */
        to = take_escape(c, to);
        if (to == NULL)
            return false;
    }
    c->at++;
    *n = to - start;
    return pf_utf8_valid(start, *n) == *n;
}

/* Which of the fields the key between two places is; -1: none. */
static int32_t which_field(const cursor *c, int64_t from, int64_t to)
{
    for (int32_t f = 0; f < PF_TEXT_TAKEN; f++)
        if ((int64_t)strlen(fields[f]) == to - from &&
            memcmp(c->s + from, fields[f], (size_t)(to - from)) == 0)
            return f;
    return -1;
}

/* Appends what lies between two places to the line without texts. */
static void keep(pf_text_reader *r, const cursor *c, int64_t from, int64_t to)
{
    memcpy((char *)r->rest.data + r->rest.n, c->s + from, (size_t)(to - from));
    r->rest.n += to - from;
}

/* All fields of the object; false: something was not as expected. */
static bool take_fields(pf_text_reader *r, cursor *c)
{
    int64_t kept = 0;
    skip_blank(c);
    if (here(c) != '{')
        return false;
    do {
        c->at++;
        skip_blank(c);
        int64_t key = c->at + 1;
        if (here(c) != '"' || !skip_string(c))
            return false;
        int32_t f = which_field(c, key, c->at - 1);
        skip_blank(c);
        if (here(c) != ':')
            return false;
        c->at++;
        skip_blank(c);
        if (f >= 0 && r->taken[f].n < 0 && here(c) == '"') {
            keep(r, c, kept, c->at);
            char *to = (char *)r->texts.data + r->texts.n;
            if (!take_string(c, to, &r->taken[f].n))
                return false;
            r->taken[f].text = to;
            r->texts.n += r->taken[f].n;
            memcpy((char *)r->rest.data + r->rest.n, "\"\"", 2);
            r->rest.n += 2;
            kept = c->at;
        } else if (!skip_value(c)) {
            return false;
        }
        skip_blank(c);
    } while (here(c) == ',');
    keep(r, c, kept, c->n);
    return here(c) == '}';
}

static void forget(pf_text_reader *r)
{
    for (int32_t f = 0; f < PF_TEXT_TAKEN; f++)
        r->taken[f] = (pf_text_taken){.n = -1};
}

int32_t pf_text_object(pf_text_reader *r, const char *bytes, int64_t n, json_t **out)
{
    cursor c = {.s = (const unsigned char *)bytes, .n = n};
    prefopt_context *context = r->lines.context;
    *out = NULL;
    /* Neither what is taken nor what is left is longer than the line. */
    PF_TRY(pf_grow(context, &r->rest.data, 0, &r->rest.capacity, n, 1));
    PF_TRY(pf_grow(context, &r->texts.data, 0, &r->texts.capacity, n, 1));
    r->rest.n = r->texts.n = 0;
    forget(r);
    if (take_fields(r, &c)) {
        int32_t status = pf_jsonl_object(&r->lines, r->rest.data, r->rest.n, out);
        if (status != PREFOPT_ERR_FORMAT)
            return status;
    }
    forget(r); /* an error's place is told as of the whole line */
    return pf_jsonl_object(&r->lines, bytes, n, out);
}

bool pf_text_take(const pf_text_reader *r, const char *field, const char **text, int64_t *n)
{
    for (int32_t f = 0; f < PF_TEXT_TAKEN; f++)
        if (r->taken[f].n >= 0 && strcmp(field, fields[f]) == 0) {
            *text = r->taken[f].text;
            *n = r->taken[f].n;
            return true;
        }
    return false;
}

#endif

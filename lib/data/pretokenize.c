/* What needs Unicode's tables: patterns (PCRE2, compiled to machine code where it can be) and NFC
 * (utf8proc). */
#include "data/pf_tokenizer.h"
#include "pf_config.h"

/* The pattern of GPT-2's ByteLevel: contractions, runs of letters, numbers, other signs, each with
 * at most one space before; white space, of which a word that follows keeps the last. */
const char pf_gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
                               "|\\s+(?!\\S)|\\s+";

#if PF_HAVE_TEXT
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

/* ---------------------------------------------------------------- patterns */

struct pf_pattern {
    pcre2_general_context *memory;
    pcre2_code *code;
    bool jit;
};

struct pf_match {
    pcre2_general_context *memory;
    pcre2_match_data *data;
};

static void *allocate(PCRE2_SIZE size, void *context)
{
    return size > INT64_MAX ? NULL : pf_alloc(context, (int64_t)size, 1);
}

static void release(void *pointer, void *context)
{
    if (pointer != NULL)
        pf_free(context, pointer);
}

static int32_t no_memory(void)
{
    return pf_fail(PREFOPT_ERR_MEMORY, "out of memory for a pattern");
}

/* What the two dialects (Oniguruma's in the file, PCRE2's here) do not mean alike: a bracket or &&
 * within brackets, \h, and what only one of them has. */
static bool means_the_same(const char *regex, int64_t n)
{
    bool bracket = false;
    for (int64_t i = 0; i < n; i++) {
        char next = i + 1 < n ? regex[i + 1] : 0;
        if (regex[i] == '\\' && next != 0) {
            if (strchr("CEGHKQRXhg", next) != NULL)
                return false;
            i++;
        } else if (bracket && (regex[i] == '[' || (regex[i] == '&' && next == '&'))) {
            return false;
        } else if (regex[i] == '[') {
            bracket = true;
            if (next == ']' || (next == '^' && i + 2 < n && regex[i + 2] == ']'))
                return false;
        } else if (regex[i] == ']') {
            bracket = false;
        }
    }
    return true;
}

/* White space in these files means Unicode's White_Space; PCRE2's \s has U+180E too. So \s and, out
 * of brackets, \S are written out. out has room for 40 n + 1 bytes. Returns the length. */
static int64_t write_out_space(const char *regex, int64_t n, char *out)
{
    static const char inside[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\p{Z}";
    int64_t used = 0;
    bool bracket = false;
    for (int64_t i = 0; i < n; i++) {
        char c = regex[i], escaped = c == '\\' && i + 1 < n ? regex[i + 1] : 0;
        if (escaped == 's' || (escaped == 'S' && !bracket)) {
            const char *before = bracket ? "" : escaped == 's' ? "[" : "[^";
            memcpy(out + used, before, strlen(before));
            used += (int64_t)strlen(before);
            memcpy(out + used, inside, sizeof inside - 1);
            used += (int64_t)sizeof inside - 1;
            if (!bracket)
                out[used++] = ']';
            i++;
            continue;
        }
        out[used++] = c;
        if (escaped != 0)
            out[used++] = regex[++i];
        else if (c == '[')
            bracket = true;
        else if (c == ']')
            bracket = false;
    }
    return used;
}

static int32_t compile(pf_pattern *pattern, prefopt_context *context, const char *regex, int64_t n)
{
    int error;
    PCRE2_SIZE offset;
    char *text = pf_alloc(context, 40 * n + 1, 1);
    if (text == NULL)
        return PREFOPT_ERR_MEMORY;
    int64_t length = write_out_space(regex, n, text);
    pattern->memory = pcre2_general_context_create(allocate, release, context);
    pcre2_compile_context *how =
        pattern->memory == NULL ? NULL : pcre2_compile_context_create(pattern->memory);
    int32_t status = PREFOPT_OK;
    if (how == NULL) {
        status = no_memory();
    } else {
        pattern->code =
            pcre2_compile((PCRE2_SPTR)text, (PCRE2_SIZE)length,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, how);
        if (pattern->code == NULL && error == PCRE2_ERROR_HEAP_FAILED) {
            status = no_memory();
        } else if (pattern->code == NULL) {
            PCRE2_UCHAR why[128] = "";
            pcre2_get_error_message(error, why, sizeof why);
            status = pf_fail(PREFOPT_ERR_FORMAT, "\"%.*s\": %s", (int)(n < 200 ? n : 200), regex,
                             (const char *)why);
        } else {
            pattern->jit = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0;
        }
    }
    pcre2_compile_context_free(how);
    pf_free(context, text);
    return status;
}

int32_t pf_pattern_compile(pf_pattern **out, prefopt_context *context, const char *regex, int64_t n)
{
    if (n > 1 << 16)
        return pf_fail(PREFOPT_ERR_FORMAT, "a pattern of %lld bytes, expected at most 65536",
                       (long long)n);
    if (!means_the_same(regex, n))
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "\"%.*s\": a bracket or && within brackets, or one of the escapes "
                       "\\C \\E \\G \\H \\K \\Q \\R \\X \\h \\g",
                       (int)(n < 200 ? n : 200), regex);
    pf_pattern *pattern = pf_calloc(context, 1, sizeof *pattern);
    if (pattern == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = compile(pattern, context, regex, n);
    if (status != PREFOPT_OK) {
        pf_pattern_destroy(context, pattern);
        return status;
    }
    *out = pattern;
    return PREFOPT_OK;
}

void pf_pattern_destroy(prefopt_context *context, pf_pattern *pattern)
{
    if (pattern == NULL)
        return;
    pcre2_code_free(pattern->code);
    pcre2_general_context_free(pattern->memory);
    pf_free(context, pattern);
}

int32_t pf_match_create(pf_match **out, prefopt_context *context)
{
    pf_match *match = pf_calloc(context, 1, sizeof *match);
    if (match == NULL)
        return PREFOPT_ERR_MEMORY;
    match->memory = pcre2_general_context_create(allocate, release, context);
    match->data = match->memory == NULL ? NULL : pcre2_match_data_create(1, match->memory);
    if (match->data == NULL) {
        pcre2_general_context_free(match->memory);
        pf_free(context, match);
        return no_memory();
    }
    *out = match;
    return PREFOPT_OK;
}

void pf_match_destroy(prefopt_context *context, pf_match *match)
{
    if (match == NULL)
        return;
    pcre2_match_data_free(match->data);
    pcre2_general_context_free(match->memory);
    pf_free(context, match);
}

int32_t pf_pattern_find(const pf_pattern *pattern, pf_match *match, const char *text, int64_t n,
                        int64_t from, int64_t *start, int64_t *end)
{
    PCRE2_SPTR s = (PCRE2_SPTR)text;
    PCRE2_SIZE length = (PCRE2_SIZE)n, at = (PCRE2_SIZE)from;
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (pattern->jit)
        found = pcre2_jit_match(pattern->code, s, length, at, 0, match->data, NULL);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(pattern->code, s, length, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            match->data, NULL);
    if (found == PCRE2_ERROR_NOMEMORY)
        return no_memory();
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "a pattern of the pre-tokenizer gave up at byte %lld of a piece of %lld "
                       "(PCRE2's error %d)",
                       (long long)from, (long long)n, found);
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(match->data);
    *start = found < 0 ? n : (int64_t)ends[0];
    *end = found < 0 ? n : (int64_t)ends[1];
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- characters */

bool pf_is_word(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* join controls, circled and squared letters */
        return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
               (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
               (c >= 0x1f170 && c <= 0x1f189);
    }
}

/* ---------------------------------------------------------------- NFC */

static int32_t append(prefopt_context *context, pf_bytes *out, const char *bytes, int64_t n)
{
    if (n == 0)
        return PREFOPT_OK;
    PF_TRY(pf_grow(context, &out->data, out->n, &out->capacity, out->n + n, 1));
    memcpy((char *)out->data + out->n, bytes, (size_t)n);
    out->n += n;
    return PREFOPT_OK;
}

/* Appends NFC of a region that combines with nothing around it. */
static int32_t normalise_region(prefopt_context *context, const char *text, int64_t n,
                                pf_bytes *out, pf_bytes *points)
{
    const utf8proc_option_t how = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_ssize_t count = 0;
    do { /* again where there was no room */
        int64_t needed = (count > n ? count : n) * (int64_t)sizeof(utf8proc_int32_t);
        PF_TRY(pf_grow(context, &points->data, 0, &points->capacity, needed, 1));
        count = utf8proc_decompose((const utf8proc_uint8_t *)text, n, points->data,
                                   points->capacity / (int64_t)sizeof(utf8proc_int32_t), how);
    } while (count > points->capacity / (int64_t)sizeof(utf8proc_int32_t));
    if (count >= 0)
        count = utf8proc_normalize_utf32(points->data, count, how);
    if (count < 0)
        return pf_fail(PREFOPT_ERR_MEMORY, "normalising %lld bytes: %s", (long long)n,
                       utf8proc_errmsg(count));
    PF_TRY(pf_grow(context, &out->data, out->n, &out->capacity, out->n + 4 * count, 1));
    for (int64_t i = 0; i < count; i++)
        out->n += utf8proc_encode_char(((utf8proc_int32_t *)points->data)[i],
                                       (utf8proc_uint8_t *)out->data + out->n);
    return PREFOPT_OK;
}

/* Characters below U+0300 are in NFC by themselves, start a composition at most, and never go into
 * one with what stands before. So a region runs from the last of them before the first other
 * character up to the next of them. U+0300 begins with byte 0xCC. */
int32_t pf_nfc(prefopt_context *context, const char *text, int64_t n, pf_bytes *out,
               pf_bytes *points, bool *same)
{
    const unsigned char *s = (const unsigned char *)text;
    int64_t done = 0, at = 0;
    *same = true;
    out->n = 0;
    while (at < n) {
        while (at < n && s[at] < 0xcc)
            at++;
        if (at == n)
            break;
        int64_t first = at, last = at;
        while (first > done && (s[--first] & 0xc0) == 0x80)
            ;
        while (last < n && (s[last] >= 0xcc || (s[last] & 0xc0) == 0x80))
            last++;
        PF_TRY(append(context, out, text + done, first - done));
        PF_TRY(normalise_region(context, text + first, last - first, out, points));
        *same = false;
        done = at = last;
    }
    return *same ? PREFOPT_OK : append(context, out, text + done, n - done);
}

#else

static int32_t without(void)
{
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "this library was built without text");
}

int32_t pf_pattern_compile(pf_pattern **out, prefopt_context *context, const char *regex, int64_t n)
{
    (void)out, (void)context, (void)regex, (void)n;
    return without();
}

void pf_pattern_destroy(prefopt_context *context, pf_pattern *pattern)
{
    (void)context, (void)pattern;
}

int32_t pf_match_create(pf_match **out, prefopt_context *context)
{
    (void)out, (void)context;
    return without();
}

void pf_match_destroy(prefopt_context *context, pf_match *match) { (void)context, (void)match; }

int32_t pf_pattern_find(const pf_pattern *pattern, pf_match *match, const char *text, int64_t n,
                        int64_t from, int64_t *start, int64_t *end)
{
    (void)pattern, (void)match, (void)text, (void)n, (void)from, (void)start, (void)end;
    return without();
}

bool pf_is_word(int32_t character)
{
    (void)character;
    return false;
}

int32_t pf_nfc(prefopt_context *context, const char *text, int64_t n, pf_bytes *out,
               pf_bytes *points, bool *same)
{
    (void)context, (void)text, (void)n, (void)out, (void)points, (void)same;
    return without();
}

#endif

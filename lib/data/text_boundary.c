/* Where a prompt ends and a completion starts: whether tokenising them apart gives the tokens of
 * both together, and how far two texts begin alike.
 *
 * The tokens of a long text need not be made again for that. GPT-2's pattern never has a piece that
 * goes on from a sign or letter to a space, and what it matches does not depend on what is before;
 * nor does a match that ends before a space depend on what comes after it. So where such a space
 * stands alone before a letter a text can be cut, and only what lies between the last such cut of
 * the prompt and the first of the completion is tokenised together and apart. */
#include "data/pf_text.h"

#if PF_HAVE_JSON

bool pf_text_cuts(const prefopt_tokenizer *t)
{
    if (t->n_patterns != 1 || t->n_splits != 0 || !t->gpt2_pattern || t->add_prefix_space)
        return false;
    for (int64_t i = 0; i < t->n_added; i++) {
        int64_t n, spaces = 0;
        const char *text = pf_token_text(t, t->added[i].token, &n);
        for (int64_t b = 0; b < n; b++)
            spaces += text[b] == ' ';
        /* Runs of two spaces and more do not match a single one. */
        if (t->added[i].lstrip || t->added[i].rstrip || (spaces > 0 && (spaces < n || n == 1)))
            return false;
    }
    return true;
}

static bool can_cut(const char *text, int64_t n, int64_t at)
{
    char before = text[at - 1], after = at + 1 < n ? text[at + 1] : 0;
    return text[at] == ' ' && before > ' ' && before < 0x7f &&
           ((after >= 'a' && after <= 'z') || (after >= 'A' && after <= 'Z'));
}

static int64_t first_cut(const pf_text_reader *r, const char *text, int64_t n)
{
    for (int64_t at = 1; r->cuts && at < n; at++)
        if (can_cut(text, n, at))
            return at;
    return n;
}

static int64_t last_cut(const pf_text_reader *r, const char *text, int64_t n)
{
    for (int64_t at = n - 1; r->cuts && at > 0; at--)
        if (can_cut(text, n, at))
            return at;
    return 0;
}

static bool equal(const int32_t *a, int64_t n_a, const int32_t *b, int64_t n_b)
{
    return n_a == n_b && (n_a == 0 || memcmp(a, b, (size_t)n_a * sizeof *a) == 0);
}

static int32_t join(pf_text_reader *r, const char *a, int64_t n_a, const char *b, int64_t n_b)
{
    PF_TRY(pf_grow(r->lines.context, &r->bytes.data, 0, &r->bytes.capacity, n_a + n_b, 1));
    memcpy(r->bytes.data, a, (size_t)n_a);
    memcpy((char *)r->bytes.data + n_a, b, (size_t)n_b);
    r->bytes.n = n_a + n_b;
    return PREFOPT_OK;
}

int32_t pf_text_mismatch(pf_text_reader *r, const pf_text_part *prompt,
                         const pf_text_part *completion, bool *differs)
{
    pf_encoder *e = &r->encoder;
    const int64_t mark = e->n, n = completion->n_bytes;
    *differs = false;
    if (prompt->n_bytes == 0 || n == 0)
        return PREFOPT_OK;
    int64_t from = last_cut(r, prompt->text, prompt->n_bytes);
    int64_t to = first_cut(r, completion->text, n);
    PF_TRY(join(r, prompt->text + from, prompt->n_bytes - from, completion->text, to));
    PF_TRY(pf_encode(e, r->bytes.data, r->bytes.n));
    int64_t together = e->n - mark, first = 0, last = 0; /* tokens of the end and of the start */
    /* Where nothing was cut off the tokens are known. */
    if (from > 0) {
        PF_TRY(pf_encode(e, prompt->text + from, prompt->n_bytes - from));
        first = e->n - mark - together;
    }
    if (to < n) {
        PF_TRY(pf_encode(e, completion->text, to));
        last = e->n - mark - together - first;
    }
    const int32_t *both = e->tokens + mark, *end = both + together, *start = end + first;
    if (from == 0) {
        end = e->tokens + prompt->begin;
        first = prompt->end - prompt->begin;
    }
    if (to == n) {
        start = e->tokens + completion->begin;
        last = completion->end - completion->begin;
    }
    *differs = together != first + last || !equal(both, first, end, first) ||
               !equal(both + first, last, start, last);
    e->n = mark;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- a prompt to be found */

/* The text that a part's tokens stand for, which normalising may have changed: appended to
 * r->bytes from `at` on. */
static int32_t spell(pf_text_reader *r, const pf_text_part *part, int64_t *n)
{
    const prefopt_tokenizer *t = r->encoder.t;
    int64_t length, at = r->bytes.n;
    for (int64_t i = part->begin; i < part->end; i++) {
        const char *text = pf_token_text(t, r->encoder.tokens[i], &length);
        PF_TRY(pf_grow(r->lines.context, &r->bytes.data, r->bytes.n, &r->bytes.capacity,
                       r->bytes.n + length + 1, 1));
        memcpy((char *)r->bytes.data + r->bytes.n, text, (size_t)length);
        r->bytes.n += length;
    }
    *n = r->bytes.n - at;
    return PREFOPT_OK;
}

/* One of the two texts, spelled out, and its tokens' place among the encoder's. */
typedef struct {
    int64_t at, n, begin, end;
} spelled;

/* *good: the tokens of the spelled text are the part's. */
static int32_t check_spelling(pf_text_reader *r, const pf_text_part *part, const spelled *s,
                              bool *good)
{
    const char *text = (const char *)r->bytes.data + s->at;
    pf_encoder *e = &r->encoder;
    if (s->n == part->n_bytes && (s->n == 0 || memcmp(text, part->text, (size_t)s->n) == 0))
        return PREFOPT_OK;
    const int64_t mark = e->n;
    *good = *good && pf_utf8_valid(text, s->n) == s->n && s->n <= PF_ENCODE_MOST;
    if (!*good)
        return PREFOPT_OK;
    PF_TRY(pf_encode(e, text, s->n));
    *good = equal(e->tokens + mark, e->n - mark, e->tokens + part->begin, part->end - part->begin);
    e->n = mark;
    return PREFOPT_OK;
}

/* *apart: s's text can be tokenised apart after k tokens, which are `middle` bytes. */
static int32_t try_apart(pf_text_reader *r, const spelled *s, int64_t k, int64_t middle,
                         bool *apart)
{
    pf_encoder *e = &r->encoder;
    const char *text = (const char *)r->bytes.data + s->at;
    const int64_t mark = e->n, rest = s->n - middle;
    *apart = middle == s->n || ((unsigned char)text[middle] & 0xc0) != 0x80;
    if (!*apart || middle == 0 || rest == 0)
        return PREFOPT_OK;
    int64_t from = last_cut(r, text, middle), to = first_cut(r, text + middle, rest);
    PF_TRY(pf_encode(e, text + from, middle - from));
    int64_t first = e->n - mark;
    PF_TRY(pf_encode(e, text + middle, to));
    int64_t last = e->n - mark - first, boundary = s->begin + k;
    const int32_t *tokens = e->tokens;
    *apart = first <= k && last <= s->end - boundary && (from > 0 || first == k) &&
             (to < rest || last == s->end - boundary) &&
             equal(tokens + mark, first, tokens + boundary - first, first) &&
             equal(tokens + mark + first, last, tokens + boundary, last);
    e->n = mark;
    return PREFOPT_OK;
}

int32_t pf_text_find_prompt(pf_text_reader *r, const pf_text_part *chosen,
                            const pf_text_part *rejected, int64_t *length, bool *moved)
{
    enum { PATIENCE = 64 };
    pf_encoder *e = &r->encoder;
    spelled one = {.begin = chosen->begin, .end = chosen->end};
    spelled two = {.begin = rejected->begin, .end = rejected->end};
    const int64_t n_one = one.end - one.begin, n_two = two.end - two.begin;
    int64_t k = 0, middle = 0, n;
    while (k < n_one && k < n_two && e->tokens[one.begin + k] == e->tokens[two.begin + k]) {
        pf_token_text(e->t, e->tokens[one.begin + k], &n);
        middle += n;
        k++;
    }
    const int64_t most = k;
    bool good = true;
    r->bytes.n = 0;
    PF_TRY(spell(r, chosen, &one.n));
    two.at = one.n;
    PF_TRY(spell(r, rejected, &two.n));
    PF_TRY(check_spelling(r, chosen, &one, &good));
    PF_TRY(check_spelling(r, rejected, &two, &good));
    /* An empty prompt is always apart. After some tries the steps grow, so that a text without a
     * good place takes no more than a few more. */
    for (int64_t tries = 0, step = 1; good && k > 0; tries++) {
        bool apart;
        PF_TRY(try_apart(r, &one, k, middle, &apart));
        if (apart)
            PF_TRY(try_apart(r, &two, k, middle, &apart));
        if (apart)
            break;
        for (int64_t i = 0; i < step && k > 0; i++) {
            pf_token_text(e->t, e->tokens[one.begin + --k], &n);
            middle -= n;
        }
        if (tries >= PATIENCE)
            step *= 2;
    }
    *length = good ? k : 0;
    *moved = *length < most;
    return PREFOPT_OK;
}

#endif

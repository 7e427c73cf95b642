/* A tokenizer.json into a tokenizer: the vocabulary, its merges, the added tokens. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "data/pf_tokenizer.h"
#include "pf_config.h"

#if PF_HAVE_JSON && PF_HAVE_TEXT
#include "data/pf_tokenizer_file.h"

/* What loading holds: each token as the file spells it. */
typedef struct {
    prefopt_tokenizer *t;
    const json_t *vocab, *merges, *added;
    const char **spelling; /* size: in the vocabulary, else the added token's content */
    int64_t *length;       /* size */
    char *joined;          /* scratch for the two parts of a merge and what they become */
    int64_t joined_capacity;
} loader;

/* ---------------------------------------------------------------- ids */

static int32_t take_id(loader *l, const char *place, const json_t *id, const char *text, int64_t n)
{
    if (!json_is_integer(id))
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: the id of \"%.*s\" is not an integer", place,
                       PF_SHOWN(text));
    json_int_t value = json_integer_value(id);
    if (value < 0 || value >= l->t->size)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "%s: the id of \"%.*s\" is %lld, expected 0 to %lld: there are %lld tokens",
                       place, PF_SHOWN(text), (long long)value, (long long)l->t->size - 1,
                       (long long)l->t->size);
    if (l->spelling[value] != NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: the id of \"%.*s\" is %lld, which \"%.*s\" has",
                       place, PF_SHOWN(text), (long long)value, PF_SHOWN(l->spelling[value]));
    l->spelling[value] = text;
    l->length[value] = n;
    return PREFOPT_OK;
}

/* Every id from 0 to size - 1 is taken exactly once: as many ids as tokens, none twice. */
static int32_t take_ids(loader *l)
{
    const char *text;
    json_t *id;
    int64_t size = (int64_t)json_object_size(l->vocab);
    for (size_t i = 0; i < json_array_size(l->added); i++) {
        const json_t *content = json_object_get(json_array_get(l->added, i), "content");
        if (!json_is_string(content) || json_string_length(content) == 0)
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "added_tokens[%zu].content is not a string, or empty", i);
        size += json_object_get(l->vocab, json_string_value(content)) == NULL;
    }
    if (size > INT32_MAX)
        return pf_fail(PREFOPT_ERR_FORMAT, "model.vocab: %lld tokens", (long long)size);
    l->t->size = size;
    l->spelling = pf_calloc(l->t->context, size, sizeof *l->spelling);
    l->length = pf_calloc(l->t->context, size, sizeof *l->length);
    l->t->flags = pf_calloc(l->t->context, size, 1);
    l->t->added = pf_calloc(l->t->context, (int64_t)json_array_size(l->added), sizeof *l->t->added);
    if (l->spelling == NULL || l->length == NULL || l->t->flags == NULL || l->t->added == NULL)
        return PREFOPT_ERR_MEMORY;
    json_object_foreach((json_t *)l->vocab, text, id)
        PF_TRY(take_id(l, "model.vocab", id, text, (int64_t)strlen(text)));
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- added tokens */

static int32_t read_added(loader *l, size_t i)
{
    bool special = false, single_word = false, lstrip = false, rstrip = false;
    char place[48];
    const json_t *entry = json_array_get(l->added, i), *content = json_object_get(entry, "content");
    const json_t *id = json_object_get(entry, "id");
    const char *text = json_string_value(content);
    int64_t n = (int64_t)json_string_length(content);
    const json_t *in_vocab = json_object_get(l->vocab, text);
    snprintf(place, sizeof place, "added_tokens[%zu]", i);
    if ((int64_t)strlen(text) != n)
        in_vocab = NULL; /* a NUL is in it: nothing of the vocabulary has one */
    if (in_vocab == NULL)
        PF_TRY(take_id(l, place, id, text, n));
    else if (!json_is_integer(id) || json_integer_value(id) != json_integer_value(in_vocab))
        return pf_fail(PREFOPT_ERR_FORMAT, "%s.id is not that of \"%.*s\" in model.vocab: %lld",
                       place, PF_SHOWN(text), (long long)json_integer_value(in_vocab));
    int32_t token = (int32_t)json_integer_value(id);
    if ((l->t->flags[token] & PF_TOKEN_ADDED) != 0)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: \"%.*s\" stands there twice", place,
                       PF_SHOWN(text));
    PF_TRY(pf_file_bool(entry, place, "special", false, &special));
    PF_TRY(pf_file_bool(entry, place, "single_word", false, &single_word));
    PF_TRY(pf_file_bool(entry, place, "lstrip", false, &lstrip));
    PF_TRY(pf_file_bool(entry, place, "rstrip", false, &rstrip));
    l->t->flags[token] |= (uint8_t)(PF_TOKEN_ADDED | (special ? PF_TOKEN_SPECIAL : 0));
    l->t->added[i] = (pf_added_token){.token = token,
                                      .special = special,
                                      .single_word = single_word,
                                      .lstrip = lstrip,
                                      .rstrip = rstrip};
    l->t->n_added++;
    return PREFOPT_OK;
}

/* Puts the contents into the tree of the raw text or, normalised, into that of the normalised. */
static int32_t plant(loader *l, bool normalised, pf_text_tree **tree, pf_bytes *normal,
                     pf_bytes *points)
{
    prefopt_tokenizer *t = l->t;
    int64_t bytes = 0;
    for (int32_t pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < t->n_added; i++) {
            const json_t *entry = json_array_get(l->added, (size_t)i);
            const json_t *content = json_object_get(entry, "content");
            bool wanted = false, same = true;
            PF_TRY(
                pf_file_bool(entry, "added_tokens[]", "normalized", !t->added[i].special, &wanted));
            if (wanted != normalised)
                continue;
            const char *text = json_string_value(content);
            int64_t n = (int64_t)json_string_length(content);
            if (normalised && t->nfc)
                PF_TRY(pf_nfc(t->context, text, n, normal, points, &same));
            if (!same) {
                text = normal->data;
                n = normal->n;
            }
            if (pass == 0)
                bytes += n;
            else
                pf_text_tree_put(*tree, text, n, (int32_t)i);
        }
        if (bytes > INT32_MAX)
            return pf_fail(PREFOPT_ERR_FORMAT, "added_tokens: %lld bytes", (long long)bytes);
        if (bytes == 0)
            break;
        if (pass == 0)
            PF_TRY(pf_text_tree_create(tree, t->context, bytes));
    }
    return PREFOPT_OK;
}

static int32_t read_all_added(loader *l)
{
    pf_bytes normal = {0}, points = {0};
    for (size_t i = 0; i < json_array_size(l->added); i++)
        PF_TRY(read_added(l, i));
    int32_t status = plant(l, false, &l->t->raw, &normal, &points);
    if (status == PREFOPT_OK)
        status = plant(l, true, &l->t->normalised, &normal, &points);
    pf_free(l->t->context, normal.data);
    pf_free(l->t->context, points.data);
    return status;
}

/* ---------------------------------------------------------------- texts */

/* Bytes of all tokens, and the tables that find them. A token of the vocabulary that is written
 * with characters outside the bytes' alphabet is its text as it stands. */
static int32_t fill_texts(loader *l)
{
    prefopt_tokenizer *t = l->t;
    int64_t total = 0;
    for (int64_t i = 0; i < t->size; i++)
        total += l->length[i] + 1;
    t->text = pf_alloc(t->context, total, 1);
    t->offsets = pf_alloc(t->context, t->size + 1, sizeof *t->offsets);
    if (t->text == NULL || t->offsets == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(pf_text_table_create(&t->table, t->context, t->size));
    PF_TRY(pf_text_table_create(&t->rest, t->context, t->size));
    t->offsets[0] = 0;
    for (int64_t i = 0; i < t->size; i++) {
        char *text = t->text + t->offsets[i];
        /* One with a NUL in it is none of the vocabulary's. */
        bool in_vocab = (int64_t)strlen(l->spelling[i]) == l->length[i] &&
                        json_object_get(l->vocab, l->spelling[i]) != NULL;
        int64_t n = in_vocab ? pf_byte_level_decode(l->spelling[i], l->length[i], text) : -1;
        bool of_bytes = n >= 0;
        if (!of_bytes) {
            n = l->length[i];
            memcpy(text, l->spelling[i], (size_t)n);
        }
        text[n] = 0;
        t->offsets[i + 1] = t->offsets[i] + n + 1;
        if (of_bytes)
            pf_text_table_put(t, &t->table, (int32_t)i);
    }
    for (int64_t i = 0; i < t->n_added; i++)
        pf_text_table_put(t, &t->rest, t->added[i].token);
    for (int64_t i = 0; i < t->size; i++) {
        int64_t n;
        const char *text = pf_token_text(t, i, &n);
        if (pf_text_table_get(t, &t->table, text, n) != i)
            pf_text_table_put(t, &t->rest, (int32_t)i);
    }
    for (int32_t byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        t->byte_token[byte] = pf_text_table_get(t, &t->table, &text, 1);
    }
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- merges */

/* The two parts of a merge: "a b", or ["a", "b"]. */
static int32_t parts_of(const json_t *merge, size_t at, const char **left, int64_t *n_left,
                        const char **right)
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (space == NULL || space == text || space[1] == 0 || strchr(space + 1, ' ') != NULL)
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "model.merges[%zu] is \"%.*s\", expected two parts with a space between",
                           at, PF_SHOWN(text));
        *left = text;
        *n_left = space - text;
        *right = space + 1;
        return PREFOPT_OK;
    }
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    if (json_array_size(merge) != 2 || *left == NULL || *right == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "model.merges[%zu] is neither a string nor two strings",
                       at);
    *n_left = (int64_t)strlen(*left);
    return PREFOPT_OK;
}

static int32_t known(const loader *l, size_t at, const char *text, int32_t *token)
{
    const json_t *id = json_object_get(l->vocab, text);
    if (id == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "model.merges[%zu]: \"%.*s\" is not in model.vocab", at,
                       PF_SHOWN(text));
    *token = (int32_t)json_integer_value(id);
    return PREFOPT_OK;
}

static int32_t read_merge(loader *l, size_t at, int32_t rank)
{
    const char *left = NULL, *right = NULL;
    int64_t n_left = 0;
    int32_t a = 0, b = 0, both = 0;
    void *joined = l->joined;
    PF_TRY(parts_of(json_array_get(l->merges, at), at, &left, &n_left, &right));
    int64_t n_right = (int64_t)strlen(right);
    int32_t status =
        pf_grow(l->t->context, &joined, 0, &l->joined_capacity, n_left + n_right + 1, 1);
    l->joined = joined;
    PF_TRY(status);
    memcpy(l->joined, left, (size_t)n_left);
    l->joined[n_left] = 0;
    PF_TRY(known(l, at, l->joined, &a));
    PF_TRY(known(l, at, right, &b));
    memcpy(l->joined + n_left, right, (size_t)n_right + 1);
    PF_TRY(known(l, at, l->joined, &both));
    pf_merges_put(&l->t->merges, a, b, rank, both);
    return PREFOPT_OK;
}

static int32_t read_merges(loader *l)
{
    size_t n = json_array_size(l->merges);
    if (n > INT32_MAX)
        return pf_fail(PREFOPT_ERR_FORMAT, "model.merges has %zu entries", n);
    PF_TRY(pf_merges_create(&l->t->merges, l->t->context, (int64_t)n));
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(l->merges, i));
        if (text != NULL && strncmp(text, "#version", 8) == 0)
            continue; /* the first line of a merges.txt */
        PF_TRY(read_merge(l, i, (int32_t)i));
    }
    return PREFOPT_OK;
}

/* Marks the tokens that merging their own bytes gives: pieces that are such a token need no merge.
 */
static int32_t mark_whole(prefopt_tokenizer *t)
{
    pf_encoder e = {.t = t};
    int32_t status = PREFOPT_OK;
    for (int64_t i = 0; i < t->size && status == PREFOPT_OK; i++) {
        int64_t n;
        const char *text = pf_token_text(t, i, &n);
        bool complete = n > 0 && pf_text_table_get(t, &t->table, text, n) == i;
        for (int64_t j = 0; j < n && complete; j++)
            complete = t->byte_token[(unsigned char)text[j]] >= 0;
        if (!complete)
            continue;
        e.n = 0;
        status = pf_encode_merged(&e, text, n);
        if (status == PREFOPT_OK && e.n == 1 && e.tokens[0] == i)
            t->flags[i] |= PF_TOKEN_WHOLE;
    }
    pf_encoder_end(&e);
    return status;
}

/* ---------------------------------------------------------------- the file */

static int32_t read_root(loader *l, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    if (!json_is_object(root))
        return pf_fail(PREFOPT_ERR_FORMAT, "not an object");
    PF_TRY(pf_file_parts(l->t, root));
    l->vocab = json_object_get(model, "vocab");
    l->merges = json_object_get(model, "merges");
    l->added = json_object_get(root, "added_tokens");
    if (!json_is_object(l->vocab))
        return pf_fail(PREFOPT_ERR_FORMAT, "model.vocab is missing or not an object");
    if (!json_is_array(l->merges))
        return pf_fail(PREFOPT_ERR_FORMAT, "model.merges is missing or not an array");
    if (l->added != NULL && !json_is_null(l->added) && !json_is_array(l->added))
        return pf_fail(PREFOPT_ERR_FORMAT, "added_tokens is not an array");
    PF_TRY(take_ids(l));
    PF_TRY(read_all_added(l));
    PF_TRY(fill_texts(l));
    PF_TRY(read_merges(l));
    return mark_whole(l->t);
}

static int32_t read_json(loader *l, const char *bytes, int64_t n)
{
    json_error_t error;
    json_t *root = json_loadb(bytes, (size_t)n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory)
        return pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
    if (root == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "line %d, column %d: %s", error.line, error.column,
                       error.text);
    int32_t status = read_root(l, root);
    pf_free(l->t->context, l->spelling);
    pf_free(l->t->context, l->length);
    pf_free(l->t->context, l->joined);
    json_decref(root);
    return status;
}

int32_t pf_tokenizer_parse(prefopt_tokenizer **out, prefopt_context *context, const char *name,
                           const char *bytes, int64_t n)
{
    /* Error texts are short; the end of a long path says more than its beginning. */
    enum { NAME_SHOWN = 256 };
    size_t length = strlen(name);
    loader l = {.t = pf_calloc(context, 1, sizeof *l.t)};
    if (l.t == NULL)
        return PREFOPT_ERR_MEMORY;
    l.t->context = pf_context_retain(context);
    int32_t status = read_json(&l, bytes, n);
    if (status != PREFOPT_OK) {
        prefopt_tokenizer_destroy(l.t);
        return pf_fail_in(status, "%s", name + (length > NAME_SHOWN ? length - NAME_SHOWN : 0));
    }
    *out = l.t;
    return PREFOPT_OK;
}

static int32_t read_file(prefopt_context *context, const char *path, pf_bytes *out)
{
    enum { PIECE = 1 << 16, MOST = 1 << 30 };
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return pf_fail_errno(errno, "opening", path);
    int32_t status = PREFOPT_OK;
    for (ssize_t got = 1; status == PREFOPT_OK && got != 0;) {
        status = pf_grow(context, &out->data, out->n, &out->capacity, out->n + PIECE, 1);
        if (status != PREFOPT_OK)
            break;
        do
            got = read(descriptor, (char *)out->data + out->n, (size_t)(out->capacity - out->n));
        while (got < 0 && errno == EINTR);
        if (got < 0)
            status = pf_fail_errno(errno, "reading", path);
        else
            out->n += got;
        if (out->n > MOST)
            status = pf_fail(PREFOPT_ERR_FORMAT, "%s: more than %d bytes", path, (int)MOST);
    }
    close(descriptor);
    return status;
}

int32_t prefopt_tokenizer_load(prefopt_tokenizer **out, prefopt_context *context,
                               const char *tokenizer_json_path)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(tokenizer_json_path);
    pf_bytes file = {0};
    int32_t status = read_file(context, tokenizer_json_path, &file);
    if (status == PREFOPT_OK)
        status = pf_tokenizer_parse(out, context, tokenizer_json_path, file.data, file.n);
    pf_free(context, file.data);
    return status;
}

#else

int32_t pf_tokenizer_parse(prefopt_tokenizer **out, prefopt_context *context, const char *name,
                           const char *bytes, int64_t n)
{
    (void)out, (void)context, (void)bytes, (void)n;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s: this library was built without %s", name,
                   PF_HAVE_TEXT ? "JSON" : "text");
}

int32_t prefopt_tokenizer_load(prefopt_tokenizer **out, prefopt_context *context,
                               const char *tokenizer_json_path)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(tokenizer_json_path);
    return pf_tokenizer_parse(out, context, tokenizer_json_path, NULL, 0);
}

#endif

/* Finding texts: a token by all its bytes, and the longest of a set of texts at a place. */
#include "data/pf_tokenizer.h"

/* ---------------------------------------------------------------- all bytes */

static inline uint64_t text_hash(const char *bytes, int64_t n)
{
    uint64_t hash = (uint64_t)n * UINT64_C(0x9e3779b97f4a7c15), word;
    for (; n >= 8; bytes += 8, n -= 8) {
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, bytes, (size_t)n);
    hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
    hash = (hash ^ hash >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ hash >> 33;
}

int32_t pf_text_table_create(pf_text_table *table, prefopt_context *context, int64_t n)
{
    int64_t slots = 16;
    while (slots / 2 <= n)
        slots *= 2;
    table->slots = pf_alloc(context, slots, sizeof *table->slots);
    if (table->slots == NULL)
        return PREFOPT_ERR_MEMORY;
    table->mask = (uint64_t)slots - 1;
    for (int64_t i = 0; i < slots; i++) {
        table->slots[i].tag = 0;
        table->slots[i].token = -1;
    }
    return PREFOPT_OK;
}

/* The slot that holds these bytes, or the empty one where they would go. */
static inline uint64_t text_slot(const prefopt_tokenizer *t, const pf_text_table *table,
                                 const char *bytes, int64_t n, uint32_t *tag)
{
    uint64_t hash = text_hash(bytes, n), at = hash & table->mask;
    *tag = (uint32_t)(hash >> 32);
    for (; table->slots[at].token >= 0; at = (at + 1) & table->mask) {
        int64_t length;
        if (table->slots[at].tag != *tag)
            continue;
        const char *text = pf_token_text(t, table->slots[at].token, &length);
        if (length == n && memcmp(text, bytes, (size_t)n) == 0)
            break;
    }
    return at;
}

bool pf_text_table_put(const prefopt_tokenizer *t, pf_text_table *table, int32_t token)
{
    uint32_t tag;
    int64_t n;
    const char *text = pf_token_text(t, token, &n);
    uint64_t at = text_slot(t, table, text, n, &tag);
    if (table->slots[at].token >= 0)
        return false;
    table->slots[at].tag = tag;
    table->slots[at].token = token;
    return true;
}

int32_t pf_text_table_get(const prefopt_tokenizer *t, const pf_text_table *table, const char *bytes,
                          int64_t n)
{
    uint32_t tag;
    return table->slots[text_slot(t, table, bytes, n, &tag)].token;
}

/* ---------------------------------------------------------------- the longest at a place */

int32_t pf_text_tree_create(pf_text_tree **out, prefopt_context *context, int64_t n_bytes)
{
    pf_text_tree *tree = pf_calloc(context, 1, sizeof *tree);
    if (tree == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_merges_create(&tree->child, context, n_bytes);
    if (status == PREFOPT_OK) {
        tree->entry = pf_alloc(context, n_bytes + 1, sizeof *tree->entry);
        if (tree->entry == NULL)
            status = PREFOPT_ERR_MEMORY;
    }
    if (status != PREFOPT_OK) {
        pf_text_tree_destroy(context, tree);
        return status;
    }
    tree->entry[0] = -1;
    tree->n_nodes = 1;
    *out = tree;
    return PREFOPT_OK;
}

void pf_text_tree_destroy(prefopt_context *context, pf_text_tree *tree)
{
    if (tree == NULL)
        return;
    pf_free(context, tree->child.slots);
    pf_free(context, tree->entry);
    pf_free(context, tree);
}

bool pf_text_tree_put(pf_text_tree *tree, const char *text, int64_t n, int32_t entry)
{
    const unsigned char *s = (const unsigned char *)text;
    int32_t node = 0;
    for (int64_t i = 0; i < n; i++) {
        const pf_merge *child = pf_merges_get(&tree->child, node, s[i]);
        if (child == NULL) {
            tree->entry[tree->n_nodes] = -1;
            pf_merges_put(&tree->child, node, s[i], 0, (int32_t)tree->n_nodes);
            node = (int32_t)tree->n_nodes++;
        } else {
            node = child->token;
        }
    }
    if (n == 0 || tree->entry[node] >= 0)
        return false;
    tree->entry[node] = entry;
    tree->first[s[0]] |= n == 1 ? 3 : 1;
    if (n > 1)
        tree->second[s[0] << 5 | s[1] >> 3] |= (uint8_t)(1 << (s[1] & 7));
    return true;
}

/* Whether some text may start at s, of which `left` bytes are there: by its first two bytes. */
static inline bool may_start(const pf_text_tree *tree, const unsigned char *s, int64_t left)
{
    if (tree->first[s[0]] != 1)
        return tree->first[s[0]] != 0;
    return left > 1 && (tree->second[s[0] << 5 | s[1] >> 3] >> (s[1] & 7) & 1) != 0;
}

int32_t pf_text_tree_find(const pf_text_tree *tree, const char *text, int64_t n, int64_t from,
                          int64_t *start, int64_t *end)
{
    const unsigned char *s = (const unsigned char *)text;
    for (int64_t at = from; at < n; at++) {
        int32_t node = 0, found = -1;
        if (!may_start(tree, s + at, n - at))
            continue;
        for (int64_t i = at; i < n; i++) {
            const pf_merge *child = pf_merges_get(&tree->child, node, s[i]);
            if (child == NULL)
                break;
            node = child->token;
            if (tree->entry[node] >= 0) {
                found = tree->entry[node];
                *start = at;
                *end = i + 1;
            }
        }
        if (found >= 0)
            return found;
    }
    return -1;
}

/* Byte pair merges by rank: a table of pairs; a scan for short pieces, a heap for long ones. */
#include "data/pf_tokenizer.h"

/* ---------------------------------------------------------------- table of pairs */

static inline uint64_t pair_hash(uint64_t key)
{
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return key ^ key >> 32;
}

int32_t pf_merges_create(pf_merges *merges, prefopt_context *context, int64_t n)
{
    int64_t slots = 16;
    while (slots / 2 <= n)
        slots *= 2;
    merges->slots = pf_alloc(context, slots, sizeof *merges->slots);
    if (merges->slots == NULL)
        return PREFOPT_ERR_MEMORY;
    merges->mask = (uint64_t)slots - 1;
    for (int64_t i = 0; i < slots; i++)
        merges->slots[i] = (pf_merge){.key = PF_NO_KEY};
    return PREFOPT_OK;
}

static inline pf_merge *find(const pf_merges *merges, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t at = pair_hash(key) & merges->mask;
    while (merges->slots[at].key != key && merges->slots[at].key != PF_NO_KEY)
        at = (at + 1) & merges->mask;
    return &merges->slots[at];
}

void pf_merges_put(pf_merges *merges, int32_t left, int32_t right, int32_t rank, int32_t token)
{
    pf_merge *slot = find(merges, left, right);
    slot->key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    slot->rank = rank;
    slot->token = token;
}

const pf_merge *pf_merges_get(const pf_merges *merges, int32_t left, int32_t right)
{
    const pf_merge *slot = find(merges, left, right);
    return slot->key == PF_NO_KEY ? NULL : slot;
}

/* ---------------------------------------------------------------- short pieces */

enum { SHORT = 48, NO_RANK = INT32_MAX };

/* rank[i], token[i]: the merge of symbols i and i + 1. Each round takes the lowest rank, the
 * leftmost of those, and looks up the two pairs that are new. */
static int64_t merge_short(const pf_merges *merges, int32_t *symbols, int64_t n)
{
    int32_t rank[SHORT], token[SHORT];
    for (int64_t i = 0; i + 1 < n; i++) {
        const pf_merge *m = pf_merges_get(merges, symbols[i], symbols[i + 1]);
        rank[i] = m == NULL ? NO_RANK : m->rank;
        token[i] = m == NULL ? 0 : m->token;
    }
    while (n > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        symbols[best] = token[best];
        n--;
        for (int64_t i = best + 1; i < n; i++)
            symbols[i] = symbols[i + 1];
        for (int64_t i = best + 1; i + 1 < n; i++) {
            rank[i] = rank[i + 1];
            token[i] = token[i + 1];
        }
        for (int64_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const pf_merge *m = pf_merges_get(merges, symbols[i], symbols[i + 1]);
            rank[i] = m == NULL ? NO_RANK : m->rank;
            token[i] = m == NULL ? 0 : m->token;
        }
    }
    return n;
}

/* ---------------------------------------------------------------- long pieces */

/* A heap of rank << 32 | place, the least on top; an entry is stale when the pair that starts at
 * its place now has another rank. At most 3 n entries: n to begin with, two more a merge. */
typedef struct {
    uint64_t *entry;
    int64_t n;
} heap;

static void heap_push(heap *h, uint64_t value)
{
    int64_t at = h->n++;
    while (at > 0 && h->entry[(at - 1) / 2] > value) {
        h->entry[at] = h->entry[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->entry[at] = value;
}

static uint64_t heap_pop(heap *h)
{
    uint64_t top = h->entry[0], value = h->entry[--h->n];
    int64_t at = 0;
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->entry[child + 1] < h->entry[child])
            child++;
        if (h->entry[child] >= value)
            break;
        h->entry[at] = h->entry[child];
        at = child;
    }
    h->entry[at] = value;
    return top;
}

static void push_pair(heap *h, const pf_merges *merges, const int32_t *symbols, int32_t at,
                      const int32_t *next, int64_t n)
{
    if (at < 0 || next[at] >= n)
        return;
    const pf_merge *m = pf_merges_get(merges, symbols[at], symbols[next[at]]);
    if (m != NULL)
        heap_push(h, (uint64_t)(uint32_t)m->rank << 32 | (uint32_t)at);
}

/* The symbols form a list by next and previous; one that was merged into its left neighbour becomes
 * -1. */
static int64_t merge_long(const pf_merges *merges, void *scratch, int32_t *symbols, int64_t n)
{
    heap h = {scratch, 0};
    int32_t *next = (int32_t *)(h.entry + 3 * n), *previous = next + n;
    for (int64_t i = 0; i < n; i++) {
        next[i] = (int32_t)(i + 1);
        previous[i] = (int32_t)(i - 1);
    }
    for (int64_t i = 0; i < n; i++)
        push_pair(&h, merges, symbols, (int32_t)i, next, n);
    while (h.n > 0) {
        uint64_t top = heap_pop(&h);
        int32_t at = (int32_t)(top & UINT32_MAX), rank = (int32_t)(top >> 32);
        if (symbols[at] < 0 || next[at] >= n)
            continue;
        const pf_merge *m = pf_merges_get(merges, symbols[at], symbols[next[at]]);
        if (m == NULL || m->rank != rank)
            continue;
        int32_t gone = next[at];
        symbols[at] = m->token;
        symbols[gone] = -1;
        next[at] = next[gone];
        if (next[at] < n)
            previous[next[at]] = at;
        push_pair(&h, merges, symbols, previous[at], next, n);
        push_pair(&h, merges, symbols, at, next, n);
    }
    int64_t used = 0;
    for (int64_t i = 0; i < n; i++)
        if (symbols[i] >= 0)
            symbols[used++] = symbols[i];
    return used;
}

int32_t pf_bpe_merge(const pf_merges *merges, prefopt_context *context, pf_bpe_scratch *scratch,
                     int32_t *symbols, int64_t n, int64_t *n_out)
{
    if (n <= SHORT) {
        *n_out = merge_short(merges, symbols, n);
        return PREFOPT_OK;
    }
    int64_t needed = n * (int64_t)(3 * sizeof(uint64_t) + 2 * sizeof(int32_t));
    PF_TRY(pf_grow(context, &scratch->data, 0, &scratch->capacity, needed, 1));
    *n_out = merge_long(merges, scratch->data, symbols, n);
    return PREFOPT_OK;
}

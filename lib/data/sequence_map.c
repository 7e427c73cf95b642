/* The map from a sequence to its index: open addressing with linear steps, at most half full. */
#include <stdatomic.h>

#include "data/pf_data.h"

struct pf_sequence_map {
    prefopt_context *context;
    _Atomic int64_t references;
    enum pf_map_of of;
    uint64_t mask;  /* slots - 1 */
    int64_t *slot;  /* mask + 1: index of a sequence, or -1 */
    uint64_t *hash; /* one a sequence: spares most comparisons of tokens */
    int32_t *tokens;
    int64_t *offsets, *prompt_len;
    prefopt_sequences view; /* of the three arrays above */
};

static void release(pf_sequence_map *map)
{
    prefopt_context *context = map->context;
    pf_free(context, map->slot);
    pf_free(context, map->hash);
    pf_free(context, map->tokens);
    pf_free(context, map->offsets);
    pf_free(context, map->prompt_len);
    pf_free(context, map);
    pf_context_release(context);
}

/* The slot where this sequence lies, or the empty one where it would. */
static uint64_t find_slot(const pf_sequence_map *map, uint64_t hash, const int32_t *tokens,
                          int64_t len, int64_t prompt_len)
{
    for (uint64_t s = hash & map->mask;; s = (s + 1) & map->mask) {
        int64_t i = map->slot[s];
        if (i < 0)
            return s;
        int64_t begin = map->offsets[i];
        if (map->hash[i] == hash && map->offsets[i + 1] - begin == len &&
            map->prompt_len[i] == prompt_len &&
            (len == 0 || memcmp(map->tokens + begin, tokens, (size_t)len * sizeof *tokens) == 0))
            return s;
    }
}

/* Room for n sequences of n_tokens together, with no sequence in it. */
static pf_sequence_map *create_empty(prefopt_context *context, enum pf_map_of of, int64_t n,
                                     int64_t n_tokens)
{
    int64_t slots = 16, wanted;
    if (!pf_mul(n, 2, &wanted) || wanted > INT64_MAX / 32) {
        pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: a map of %lld sequences", (long long)n);
        return NULL;
    }
    while (slots < wanted)
        slots *= 2;
    pf_sequence_map *map = pf_calloc(context, 1, sizeof *map);
    if (map == NULL)
        return NULL;
    map->context = pf_context_retain(context);
    atomic_init(&map->references, 1);
    map->of = of;
    map->mask = (uint64_t)slots - 1;
    map->slot = pf_alloc(context, slots, sizeof *map->slot);
    map->hash = pf_alloc(context, n, sizeof *map->hash);
    map->tokens = pf_alloc(context, n_tokens, sizeof *map->tokens);
    map->offsets = pf_alloc(context, n + 1, sizeof *map->offsets);
    map->prompt_len = pf_alloc(context, n, sizeof *map->prompt_len);
    if (map->slot == NULL || map->hash == NULL || map->tokens == NULL || map->offsets == NULL ||
        map->prompt_len == NULL) {
        release(map);
        return NULL;
    }
    memset(map->slot, 0xff, (size_t)slots * sizeof *map->slot);
    map->offsets[0] = 0;
    map->view = (prefopt_sequences){.struct_size = sizeof map->view,
                                    .tokens = map->tokens,
                                    .offsets = map->offsets,
                                    .prompt_len = map->prompt_len};
    return map;
}

int32_t pf_sequence_map_create(pf_sequence_map **out, prefopt_context *context,
                               const prefopt_sequences *in, enum pf_map_of of, int64_t *index)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_TRY(pf_sequences_check(in, "in"));
    int64_t total = 0;
    for (int64_t i = 0; i < in->n; i++)
        if (!pf_add(total, of == PF_MAP_PROMPTS ? in->prompt_len[i] : pf_sequence_len(in, i),
                    &total))
            return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: tokens of %lld sequences",
                           (long long)in->n);
    pf_sequence_map *map = create_empty(context, of, in->n, total);
    if (map == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < in->n; i++) {
        const int32_t *tokens = pf_sequence_tokens(in, i);
        int64_t prompt_len = in->prompt_len[i];
        int64_t len = of == PF_MAP_PROMPTS ? prompt_len : pf_sequence_len(in, i);
        uint64_t hash = pf_sequence_hash(tokens, len, prompt_len);
        uint64_t s = find_slot(map, hash, tokens, len, prompt_len);
        if (map->slot[s] < 0) {
            int64_t at = map->view.n++;
            map->slot[s] = at;
            map->hash[at] = hash;
            map->prompt_len[at] = prompt_len;
            if (len > 0)
                memcpy(map->tokens + map->offsets[at], tokens, (size_t)len * sizeof *tokens);
            map->offsets[at + 1] = map->offsets[at] + len;
        }
        if (index != NULL)
            index[i] = map->slot[s];
    }
    *out = map;
    return PREFOPT_OK;
}

pf_sequence_map *pf_sequence_map_retain(pf_sequence_map *map)
{
    atomic_fetch_add_explicit(&map->references, 1, memory_order_relaxed);
    return map;
}

void pf_sequence_map_destroy(pf_sequence_map *map)
{
    if (map != NULL && atomic_fetch_sub_explicit(&map->references, 1, memory_order_acq_rel) == 1)
        release(map);
}

int64_t pf_sequence_map_find_tokens(const pf_sequence_map *map, const int32_t *tokens, int64_t len,
                                    int64_t prompt_len)
{
    if (map->of == PF_MAP_PROMPTS)
        len = prompt_len;
    uint64_t hash = pf_sequence_hash(tokens, len, prompt_len);
    return map->slot[find_slot(map, hash, tokens, len, prompt_len)];
}

int64_t pf_sequence_map_find(const pf_sequence_map *map, const prefopt_sequences *in, int64_t i)
{
    return pf_sequence_map_find_tokens(map, pf_sequence_tokens(in, i), pf_sequence_len(in, i),
                                       in->prompt_len[i]);
}

int64_t pf_sequence_map_size(const pf_sequence_map *map) { return map->view.n; }

const prefopt_sequences *pf_sequence_map_view(const pf_sequence_map *map) { return &map->view; }

/* Which rows a step takes, and their distinct sequences laid end to end.
 *
 * Positions 0, 1, 2 ... of an endless sequence run through epoch after epoch, each a permutation of
 * the rows; step s takes positions s * batch .. (s + 1) * batch - 1. Every batch has the same size,
 * every row comes once an epoch, and what a step sees depends on (seed, step) alone. */
#include "train/pf_train.h"

static int32_t allocate_gathered(pf_batches *b)
{
    const pf_rows *rows = b->rows;
    prefopt_context *context = b->context;
    const prefopt_sequences *view = pf_sequence_map_view(rows->map);
    int64_t longest = 0, slots, tokens;
    for (int64_t i = 0; i < view->n; i++)
        if (pf_sequence_len(view, i) > longest)
            longest = pf_sequence_len(view, i);
    if (!pf_mul(b->batch, rows->max_row, &slots))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: a batch of %lld rows",
                       (long long)b->batch);
    int64_t distinct = slots < view->n ? slots : view->n;
    int64_t all = view->offsets[view->n] - view->offsets[0];
    if (!pf_mul(distinct, longest, &tokens) || tokens > all)
        tokens = all;
    b->stamp = pf_alloc(context, view->n, sizeof *b->stamp);
    b->seen = pf_calloc(context, view->n, sizeof *b->seen);
    b->distinct = pf_alloc(context, distinct, sizeof *b->distinct);
    b->prompt_len = pf_alloc(context, distinct, sizeof *b->prompt_len);
    b->offsets = pf_alloc(context, distinct + 1, sizeof *b->offsets);
    b->slot = pf_alloc(context, slots, sizeof *b->slot);
    b->tokens = pf_alloc(context, tokens, sizeof *b->tokens);
    bool failed = b->stamp == NULL || b->seen == NULL || b->distinct == NULL ||
                  b->prompt_len == NULL || b->offsets == NULL || b->slot == NULL ||
                  b->tokens == NULL;
    return failed ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
}

int32_t pf_batches_init(pf_batches *b, prefopt_context *context, const pf_rows *rows, int64_t n,
                        int64_t batch, uint64_t seed)
{
    memset(b, 0, sizeof *b);
    b->context = context;
    b->rows = rows;
    b->n = n;
    b->batch = batch > 0 && batch < n ? batch : n;
    b->seed = seed;
    b->epoch = -1;
    if (b->batch == n)
        return PREFOPT_OK;
    b->order = pf_alloc(context, n, sizeof *b->order);
    b->chosen = pf_alloc(context, b->batch, sizeof *b->chosen);
    int32_t status = b->order == NULL || b->chosen == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    if (status == PREFOPT_OK && rows != NULL)
        status = allocate_gathered(b);
    if (status != PREFOPT_OK)
        pf_batches_clear(b);
    return status;
}

void pf_batches_clear(pf_batches *b)
{
    void *const owned[] = {b->order, b->chosen,  b->stamp,      b->seen,  b->distinct,
                           b->slot,  b->offsets, b->prompt_len, b->tokens};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        pf_free(b->context, owned[i]);
    memset(b, 0, sizeof *b);
}

void pf_batches_all(const pf_batches *b, pf_batch *out)
{
    *out = (pf_batch){.n = b->n};
    if (b->rows == NULL)
        return;
    out->sequences = *pf_sequence_map_view(b->rows->map);
    out->n_slots = b->rows->n_slots;
    out->slot = b->rows->sequence;
}

/* The distinct sequences of the chosen rows, in order of first appearance. */
static void gather(pf_batches *b, pf_batch *out)
{
    const pf_rows *rows = b->rows;
    const prefopt_sequences *view = pf_sequence_map_view(rows->map);
    int64_t n = 0, n_slots = 0, n_tokens = 0;
    b->gathering++;
    for (int64_t k = 0; k < b->batch; k++) {
        int64_t row = b->chosen[k];
        for (int64_t s = rows->first[row]; s < rows->first[row + 1]; s++) {
            int64_t d = rows->sequence[s];
            if (b->seen[d] != b->gathering) {
                int64_t len = pf_sequence_len(view, d);
                b->seen[d] = b->gathering;
                b->stamp[d] = n;
                b->distinct[n] = d;
                b->prompt_len[n] = view->prompt_len[d];
                b->offsets[n++] = n_tokens;
                if (len > 0)
                    memcpy(b->tokens + n_tokens, pf_sequence_tokens(view, d),
                           (size_t)len * sizeof *b->tokens);
                n_tokens += len;
            }
            b->slot[n_slots++] = b->stamp[d];
        }
    }
    b->offsets[n] = n_tokens;
    out->sequences = (prefopt_sequences){.struct_size = sizeof out->sequences,
                                         .n = n,
                                         .tokens = b->tokens,
                                         .offsets = b->offsets,
                                         .prompt_len = b->prompt_len};
    out->distinct = b->distinct;
    out->n_slots = n_slots;
    out->slot = b->slot;
}

void pf_batches_take(pf_batches *b, int64_t step, pf_batch *out)
{
    if (b->batch == b->n) {
        pf_batches_all(b, out);
        return;
    }
    for (int64_t k = 0; k < b->batch; k++) {
        /* step * batch + k, as epoch and place, without overflow. */
        int64_t place = (step % b->n) * b->batch + k;
        int64_t epoch = (step / b->n) * b->batch + place / b->n;
        if (epoch != b->epoch) {
            pf_permutation(b->seed, pf_stream(PF_STREAM_BATCHES, (uint64_t)epoch), b->n, b->order);
            b->epoch = epoch;
        }
        b->chosen[k] = b->order[place % b->n];
    }
    *out = (pf_batch){.n = b->batch, .rows = b->chosen};
    if (b->rows != NULL)
        gather(b, out);
}

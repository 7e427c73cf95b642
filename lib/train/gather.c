/* Chosen rows with their distinct sequences laid end to end. */
#include "train/pf_train.h"

int32_t pf_gather_init(pf_gather *g, prefopt_context *context, const pf_rows *rows,
                       int64_t capacity)
{
    const prefopt_sequences *view = pf_sequence_map_view(rows->map);
    int64_t longest = 0, slots = 0, tokens;
    memset(g, 0, sizeof *g);
    for (int64_t i = 0; i < view->n; i++)
        if (pf_sequence_len(view, i) > longest)
            longest = pf_sequence_len(view, i);
    PF_TRY(pf_rows_max_slots(rows, capacity, &slots));
    int64_t distinct = slots < view->n ? slots : view->n;
    int64_t all = view->offsets[view->n] - view->offsets[0];
    if (!pf_mul(distinct, longest, &tokens) || tokens > all)
        tokens = all;
    g->context = context;
    g->rows = rows;
    g->stamp = pf_alloc(context, view->n, sizeof *g->stamp);
    g->seen = pf_calloc(context, view->n, sizeof *g->seen);
    g->distinct = pf_alloc(context, distinct, sizeof *g->distinct);
    g->prompt_len = pf_alloc(context, distinct, sizeof *g->prompt_len);
    g->offsets = pf_alloc(context, distinct + 1, sizeof *g->offsets);
    g->slot = pf_alloc(context, slots, sizeof *g->slot);
    g->tokens = pf_alloc(context, tokens, sizeof *g->tokens);
    if (g->stamp != NULL && g->seen != NULL && g->distinct != NULL && g->prompt_len != NULL &&
        g->offsets != NULL && g->slot != NULL && g->tokens != NULL)
        return PREFOPT_OK;
    pf_gather_clear(g);
    return PREFOPT_ERR_MEMORY;
}

void pf_gather_clear(pf_gather *g)
{
    void *const owned[] = {g->stamp,   g->seen, g->distinct, g->prompt_len,
                           g->offsets, g->slot, g->tokens};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        if (owned[i] != NULL)
            pf_free(g->context, owned[i]);
    memset(g, 0, sizeof *g);
}

void pf_gather_rows(pf_gather *g, const int64_t *chosen, int64_t n_chosen, pf_batch *out)
{
    const pf_rows *rows = g->rows;
    const prefopt_sequences *view = pf_sequence_map_view(rows->map);
    int64_t n = 0, n_slots = 0, n_tokens = 0;
    g->gathering++;
    for (int64_t k = 0; k < n_chosen; k++) {
        int64_t row = chosen[k];
        for (int64_t s = rows->first[row]; s < rows->first[row + 1]; s++) {
            int64_t d = rows->sequence[s];
            if (g->seen[d] != g->gathering) {
                int64_t len = pf_sequence_len(view, d);
                g->seen[d] = g->gathering;
                g->stamp[d] = n;
                g->distinct[n] = d;
                g->prompt_len[n] = view->prompt_len[d];
                g->offsets[n++] = n_tokens;
                if (len > 0)
                    memcpy(g->tokens + n_tokens, pf_sequence_tokens(view, d),
                           (size_t)len * sizeof *g->tokens);
                n_tokens += len;
            }
            g->slot[n_slots++] = g->stamp[d];
        }
    }
    g->offsets[n] = n_tokens;
    *out = (pf_batch){.n = n_chosen,
                      .rows = chosen,
                      .sequences = {.struct_size = sizeof out->sequences,
                                    .n = n,
                                    .tokens = g->tokens,
                                    .offsets = g->offsets,
                                    .prompt_len = g->prompt_len},
                      .distinct = g->distinct,
                      .n_slots = n_slots,
                      .slot = g->slot};
}

/* Next-token log-probabilities of whole sequences: a decoder's prompts, and no steps. */
#include <math.h>

#include "model/pf_decoder.h"
#include "model/pf_network.h"

/* How many sequences from `first` on fit the budget, at least 1. */
static int64_t part_size(const pf_shape *shape, const prefopt_sequences *in, int64_t first)
{
    int64_t left = pf_context_byte_budget(shape->context), n = 0;
    for (; first + n < in->n; n++) {
        int64_t length = pf_sequence_len(in, first + n), bytes;
        if (!pf_add(pf_decoder_prompt_bytes(shape, length), pf_decoder_row_bytes(shape, length, 0),
                    &bytes) ||
            bytes > left)
            break;
        left -= bytes;
    }
    return n < 1 ? 1 : n;
}

typedef struct {
    pf_distributions d;
    double *next_logp;
} copy_work;

static void copy_row(void *payload, int64_t i)
{
    const copy_work *w = payload;
    const float *logits = w->d.logits + i * w->d.vocab;
    double *out = w->next_logp + i * w->d.vocab, z = w->d.log_normaliser[i];
    for (int64_t v = 0; v < w->d.vocab; v++) {
        double logp = (double)logits[v] - z;
        out[v] = logp < 0 ? logp : 0;
    }
}

static int32_t compute_part(pf_decoder *decoder, const prefopt_sequences *in, int64_t first,
                            int64_t n, double *next_logp)
{
    prefopt_sequences part = pf_sequences_part(in, first, n);
    PF_TRY(pf_decoder_prompts(decoder, &part));
    copy_work work = {.next_logp = next_logp};
    pf_decoder_distributions(decoder, &work.d);
    for (int64_t i = 0; i < n; i++)
        if (isnan(work.d.log_normaliser[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "sequence %lld: the transformer's logits are not finite",
                           (long long)(first + i));
    pf_parallel_for(pf_decoder_shape(decoder)->context, n, copy_row, &work);
    return PREFOPT_OK;
}

int32_t pf_decoder_next_logprobs(const pf_shape *shape, const float *value,
                                 pf_transitions *transitions, const prefopt_sequences *in,
                                 double *next_logp)
{
    PF_TRY(pf_transformer_check(shape, in, PF_HEAD_SCORE));
    pf_decoder *decoder;
    PF_TRY(pf_decoder_create(&decoder, shape, value, 1, transitions));
    int32_t status = PREFOPT_OK;
    for (int64_t first = 0, n; first < in->n && status == PREFOPT_OK; first += n) {
        n = part_size(shape, in, first);
        status = compute_part(decoder, in, first, n, next_logp + first * shape->config.vocab);
    }
    pf_decoder_destroy(decoder);
    return status;
}

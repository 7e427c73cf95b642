/* The space of completions: counting it, and telling what belongs to it. */
#include <math.h>

#include "model/pf_model.h"

int32_t pf_space_read(prefopt_space *own, const prefopt_space *space)
{
    if (space == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "space is NULL");
    PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, space, "prefopt_space"));
    if (own->vocab < 1 || own->vocab > INT32_MAX)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "space: vocab is %lld, expected 1 to %d",
                       (long long)own->vocab, INT32_MAX);
    if (own->horizon < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "space: horizon is %lld, expected at least 1",
                       (long long)own->horizon);
    if (own->eos < -1 || own->eos >= own->vocab)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "space: eos is %d, expected -1 (none) or a token below vocab = %lld",
                       own->eos, (long long)own->vocab);
    return PREFOPT_OK;
}

/* a^horizon without eos; with it sum of a^l over l < horizon (ended by eos) plus a^horizon. */
int32_t prefopt_space_count(const prefopt_space *space, int64_t *count)
{
    prefopt_space own;
    PF_TRY(pf_space_read(&own, space));
    PF_REQUIRE(count);
    int64_t a = pf_space_alphabet(&own), power = 1, ended = 0;
    bool fits = true;
    if (a > 1)
        for (int64_t l = 0; l < own.horizon && fits; l++)
            fits = pf_add(ended, power, &ended) && pf_mul(power, a, &power);
    else if (a == 1)
        ended = own.horizon;
    if (fits && own.eos >= 0 && a > 0)
        fits = pf_add(power, ended, &power);
    if (!fits)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "space: about exp(%.1f) completions (vocab %lld, horizon %lld), expected at "
                       "most 2^63 - 1",
                       pf_space_log_count(&own), (long long)own.vocab, (long long)own.horizon);
    *count = power;
    return PREFOPT_OK;
}

double pf_space_log_count(const prefopt_space *space)
{
    int64_t a = pf_space_alphabet(space);
    double h = (double)space->horizon;
    if (a == 0)
        return 0;
    if (space->eos < 0)
        return h * log((double)a);
    if (a == 1)
        return log(h + 1);
    /* (a^(h+1) - 1) / (a - 1) */
    return (h + 1) * log((double)a) + log1p(-pow((double)a, -(h + 1))) - log((double)a - 1);
}

int32_t pf_space_check_tokens(const prefopt_space *space, const prefopt_sequences *in, int64_t i)
{
    int64_t len, prompt_len = in->prompt_len[i];
    const int32_t *y = pf_completion(in, i, &len);
    for (int64_t t = 0; t < len; t++)
        if (y[t] >= space->vocab)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "token %lld of sequence %lld is %d, expected 0 to %lld in a completion",
                           (long long)(prompt_len + t), (long long)i, y[t],
                           (long long)space->vocab - 1);
    return PREFOPT_OK;
}

/* At most `most` tokens, and eos, where it occurs, is the last of a complete one. */
static int32_t check_shape(const prefopt_space *space, const prefopt_sequences *in, int64_t i,
                           int64_t most, bool complete)
{
    PF_TRY(pf_space_check_tokens(space, in, i));
    int64_t len, prompt_len = in->prompt_len[i];
    const int32_t *y = pf_completion(in, i, &len);
    if (len > most)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "token %lld of sequence %lld is beyond the horizon: its %s has %lld tokens, "
                       "expected at most %lld",
                       (long long)(prompt_len + most), (long long)i,
                       complete ? "completion" : "completion so far", (long long)len,
                       (long long)most);
    if (space->eos < 0)
        return PREFOPT_OK;
    for (int64_t t = 0; t < len - complete; t++)
        if (y[t] == space->eos)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "token %lld of sequence %lld is the end token %d, expected %s",
                           (long long)(prompt_len + t), (long long)i, y[t],
                           complete ? "nothing after it" : "a completion that can go on");
    return PREFOPT_OK;
}

int32_t pf_space_check_completion(const prefopt_space *space, const prefopt_sequences *in,
                                  int64_t i)
{
    int64_t len;
    const int32_t *y = pf_completion(in, i, &len);
    PF_TRY(check_shape(space, in, i, space->horizon, true));
    if (len == 0 || len == space->horizon || (space->eos >= 0 && y[len - 1] == space->eos))
        return PREFOPT_OK;
    if (space->eos < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "sequence %lld: its completion has %lld tokens, expected %lld (the horizon)",
                       (long long)i, (long long)len, (long long)space->horizon);
    return pf_fail(PREFOPT_ERR_ARGUMENT,
                   "sequence %lld: its completion of %lld tokens ends with token %d, expected the "
                   "end token %d before the horizon %lld",
                   (long long)i, (long long)len, y[len - 1], space->eos, (long long)space->horizon);
}

int32_t pf_space_check_prefix(const prefopt_space *space, const prefopt_sequences *in, int64_t i)
{
    return check_shape(space, in, i, space->horizon - 1, false);
}

int64_t pf_find_prompt(const pf_sequence_map *prompts, const prefopt_sequences *in, int64_t i)
{
    int64_t prompt = pf_sequence_map_find(prompts, in, i);
    if (prompt < 0)
        pf_fail(PREFOPT_ERR_ARGUMENT,
                "sequence %lld: its prompt (%lld tokens) is none of the %lld this policy was "
                "created with",
                (long long)i, (long long)in->prompt_len[i],
                (long long)pf_sequence_map_size(prompts));
    return prompt < 0 ? -1 : prompt;
}

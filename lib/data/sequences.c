/* Views of token sequences: checking, hashing, comparing. */
#include "data/pf_data.h"

int32_t pf_sequences_check(const prefopt_sequences *in, const char *name)
{
    if (in == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is NULL", name);
    prefopt_sequences own = {0};
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, in, "prefopt_sequences"));
    if (own.n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: n is %lld, expected at least 0", name,
                       (long long)own.n);
    if (own.n == 0)
        return PREFOPT_OK;
    if (own.offsets == NULL || own.prompt_len == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL but n is %lld", name,
                       own.offsets == NULL ? "offsets" : "prompt_len", (long long)own.n);
    if (own.offsets[0] < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: offsets[0] is %lld, expected at least 0", name,
                       (long long)own.offsets[0]);
    for (int64_t i = 0; i < own.n; i++) {
        int64_t begin = own.offsets[i], end = own.offsets[i + 1];
        if (end < begin)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s: offsets[%lld] is %lld, expected at least offsets[%lld] = %lld",
                           name, (long long)i + 1, (long long)end, (long long)i, (long long)begin);
        if (own.prompt_len[i] < 0 || own.prompt_len[i] > end - begin)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s: prompt_len[%lld] is %lld, expected 0 to the sequence's length %lld",
                           name, (long long)i, (long long)own.prompt_len[i],
                           (long long)(end - begin));
        if (end > begin && own.tokens == NULL)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s: tokens is NULL but sequence %lld has %lld of them", name,
                           (long long)i, (long long)(end - begin));
        for (int64_t t = begin; t < end; t++)
            if (own.tokens[t] < 0)
                return pf_fail(PREFOPT_ERR_ARGUMENT,
                               "%s: token %lld of sequence %lld is %d, expected at least 0", name,
                               (long long)(t - begin), (long long)i, own.tokens[t]);
    }
    return PREFOPT_OK;
}

prefopt_sequences pf_sequences_part(const prefopt_sequences *in, int64_t first, int64_t n)
{
    prefopt_sequences part = {.struct_size = sizeof part, .n = n, .tokens = in->tokens};
    if (n > 0) {
        part.offsets = in->offsets + first;
        part.prompt_len = in->prompt_len + first;
    }
    return part;
}

uint64_t pf_sequence_hash(const int32_t *tokens, int64_t len, int64_t prompt_len)
{
    uint64_t hash = pf_stream((uint64_t)len, (uint64_t)prompt_len);
    for (int64_t t = 0; t < len; t++)
        hash = pf_stream(hash, (uint64_t)tokens[t]);
    return hash;
}

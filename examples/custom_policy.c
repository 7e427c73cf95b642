/* A policy of one's own behind callbacks: a softmax over next tokens that depends on the last token
 * alone (a Markov chain), trained by the library's DPO trainer as any built-in policy is. */
#include <math.h>

#include "support/cli.h"

enum { VOCAB = 3, HORIZON = 3, N = (VOCAB + 1) * VOCAB };

typedef struct {
    double logit[N], grad[N]; /* [last token, or VOCAB at the start][next token] */
} markov;

static int row_of(const prefopt_sequences *in, int64_t i, int64_t at)
{
    int64_t start = in->offsets[i] + in->prompt_len[i];
    return at > start ? in->tokens[at - 1] : VOCAB;
}

static void log_softmax(const markov *m, int row, double *out)
{
    double z = prefopt_log_sum_exp(VOCAB, m->logit + row * VOCAB);
    for (int v = 0; v < VOCAB; v++)
        out[v] = m->logit[row * VOCAB + v] - z;
}

static int32_t logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                        double *token_logp)
{
    for (int64_t i = 0; i < in->n; i++) {
        sequence_logp[i] = 0;
        for (int64_t at = in->offsets[i]; at < in->offsets[i + 1]; at++) {
            double logp[VOCAB], value = 0;
            if (at >= in->offsets[i] + in->prompt_len[i]) {
                log_softmax(payload, row_of(in, i, at), logp);
                value = logp[in->tokens[at]];
            }
            sequence_logp[i] += value;
            if (token_logp != NULL)
                token_logp[at - in->offsets[0]] = value;
        }
    }
    return 0;
}

static int32_t backward(void *payload, const prefopt_sequences *in, const double *grad)
{
    markov *m = payload;
    for (int64_t i = 0; i < in->n; i++)
        for (int64_t at = in->offsets[i] + in->prompt_len[i]; at < in->offsets[i + 1]; at++) {
            int row = row_of(in, i, at);
            double logp[VOCAB];
            log_softmax(m, row, logp);
            for (int v = 0; v < VOCAB; v++)
                m->grad[row * VOCAB + v] += grad[i] * ((v == in->tokens[at]) - exp(logp[v]));
        }
    return 0;
}

static int32_t next_logprobs(void *payload, const prefopt_sequences *in, double *next_logp)
{
    for (int64_t i = 0; i < in->n; i++)
        log_softmax(payload, row_of(in, i, in->offsets[i + 1]), next_logp + i * VOCAB);
    return 0;
}

static int32_t parameters(void *payload, prefopt_parameters *out)
{
    markov *m = payload;
    out->dtype = PREFOPT_F64;
    out->n = N;
    out->value = m->logit;
    out->grad = m->grad;
    return 0;
}

int main(void)
{
    markov mine = {{0}, {0}};
    prefopt_context *context;
    prefopt_policy *policy;
    prefopt_reference *uniform;
    prefopt_dataset *pairs;
    prefopt_trainer *trainer;
    prefopt_space space = {
        .struct_size = sizeof space, .eos = -1, .vocab = VOCAB, .horizon = HORIZON};
    prefopt_policy_callbacks callbacks = {.struct_size = sizeof callbacks,
                                          .logprobs = logprobs,
                                          .backward = backward,
                                          .next_logprobs = next_logprobs,
                                          .parameters = parameters};
    CALL(prefopt_context_create(&context, NULL));
    CALL(prefopt_policy_create_custom(&policy, context, &space, &callbacks, &mine));
    CALL(prefopt_reference_create_uniform(&uniform, context, &space));
    CALL(prefopt_dataset_create(&pairs, context));
    /* Completions that repeat a token are preferred, three times in four. */
    int32_t repeats[3][3] = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}},
            moves[3][3] = {{0, 1, 2}, {1, 2, 0}, {2, 0, 1}};
    for (int i = 0; i < 3; i++)
        CALL(prefopt_dataset_append_pair(pairs, NULL, 0, repeats[i], 3, moves[i], 3, 4, 0.75, 0));
    prefopt_dpo_options dpo;
    CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
    CALL(prefopt_trainer_create_dpo(&trainer, policy, uniform, pairs, &dpo, NULL));
    prefopt_progress before, after;
    before.struct_size = after.struct_size = sizeof before;
    CALL(prefopt_trainer_run(trainer, 1, &before));
    CALL(prefopt_trainer_run(trainer, 500, &after));
    printf("loss %.6f -> %.6f\n", before.loss, after.loss);
    double next[VOCAB];
    int32_t one = 1;
    int64_t zero = 0;
    prefopt_sequences state = {.struct_size = sizeof state,
                               .n = 1,
                               .tokens = &one,
                               .offsets = (int64_t[]){0, 1},
                               .prompt_len = &zero};
    CALL(prefopt_policy_next_logprobs(policy, &state, next));
    printf("after a 1: P(0) = %.4f, P(1) = %.4f, P(2) = %.4f\n", exp(next[0]), exp(next[1]),
           exp(next[2]));
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(pairs);
    prefopt_reference_destroy(uniform);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    /* The optimum is where sigma(beta d) = 3/4 for every pair: the entropy of the labels is left.
     */
    return next[1] > log(0.9) && fabs(before.loss - log(2)) < 1e-12 && after.loss < 0.57 ? 0 : 1;
}

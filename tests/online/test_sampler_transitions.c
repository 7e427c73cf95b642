/* The sampler over a transformer whose tokens may not follow each other as they like. */
#include "model/pf_model.h"
#include "statistics.h"

enum { POSITIONS = 9, LENGTH = 6 };

typedef struct {
    prefopt_context *context;
    prefopt_dataset *prompts;
    prefopt_policy *policy;
    int64_t vocab;
    uint8_t *allowed;
} world;

/* Three tokens may follow each token, spread over the whole alphabet (tiles of the decoder are 512
 * tokens). */
static world make_world(int32_t threads, int64_t vocab)
{
    world w = {.context = test_context(threads), .vocab = vocab};
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = vocab;
    c.n_layers = 1;
    c.width = 16;
    c.n_heads = 2;
    c.ff_width = 32;
    c.max_positions = POSITIONS;
    c.init_scale = 0.3;
    c.eos = -1;
    OK(prefopt_policy_create_transformer(&w.policy, w.context, &c, 6));
    w.allowed = calloc((size_t)(vocab * vocab), 1);
    for (int64_t u = 0; u < vocab; u++)
        for (int64_t k = 0; k < 3; k++)
            w.allowed[u * vocab + (5 * u + 1 + k * (vocab / 3)) % vocab] = 1;
    OK(prefopt_policy_set_transitions(w.policy, w.allowed));
    OK(prefopt_dataset_create(&w.prompts, w.context));
    for (int32_t i = 0; i < 3; i++) {
        prefopt_row row;
        const int32_t prompt[] = {i, 2 * i + 1, 3};
        OK(prefopt_row_init(&row, sizeof row));
        row.prompt = prompt;
        row.prompt_len = i == 2 ? 3 : 2;
        OK(prefopt_dataset_append(w.prompts, &row));
    }
    return w;
}

static void end_world(world *w)
{
    free(w->allowed);
    prefopt_policy_destroy(w->policy);
    prefopt_dataset_destroy(w->prompts);
    prefopt_context_destroy(w->context);
}

static prefopt_sampler_options options_of(int64_t n)
{
    prefopt_sampler_options o;
    OK(prefopt_sampler_options_init(&o, sizeof o));
    o.n = n;
    o.seed = 77;
    o.max_tokens = LENGTH;
    return o;
}

/* The samples keep to the mask; logp is the policy's; the sampler over next_logprobs, which knows
 * nothing of decoders and truncates in double, draws the same. */
static void check_options(world *w, const prefopt_sampler_options *o)
{
    prefopt_dataset *samples, *plain;
    OK(prefopt_sample(&samples, w->policy, w->prompts, o));
    prefopt_sequences in = {.struct_size = sizeof in};
    prefopt_columns columns = {.struct_size = sizeof columns},
                    other = {.struct_size = sizeof other};
    OK(prefopt_dataset_sequences(samples, &in));
    OK(prefopt_dataset_columns(samples, &columns));
    double *logp = malloc((size_t)in.n * sizeof *logp);
    OK(prefopt_policy_logprobs(w->policy, &in, logp, NULL));
    for (int64_t i = 0; i < in.n; i++) {
        ck_assert(isfinite(columns.logp[i]) && isfinite(columns.sampler_logp[i]));
        CLOSE(columns.logp[i], logp[i], 2e-5);
        ck_assert_int_eq(in.offsets[i + 1] - in.offsets[i] - in.prompt_len[i], LENGTH);
        for (int64_t t = in.offsets[i] + in.prompt_len[i]; t < in.offsets[i + 1]; t++)
            ck_assert(w->allowed[in.tokens[t - 1] * w->vocab + in.tokens[t]]);
    }
    const pf_policy_extras *extras = w->policy->extras;
    w->policy->extras = NULL;
    OK(prefopt_sample(&plain, w->policy, w->prompts, o));
    w->policy->extras = extras;
    OK(prefopt_dataset_columns(plain, &other));
    ck_assert(prefopt_dataset_hash(samples) == prefopt_dataset_hash(plain));
    for (int64_t i = 0; i < in.n; i++)
        CLOSE(columns.sampler_logp[i], other.sampler_logp[i], 2e-5);
    free(logp);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(plain);
}

static void check_all_options(int64_t vocab)
{
    world w = make_world(2, vocab);
    prefopt_sampler_options o = options_of(20);
    check_options(&w, &o);
    o.temperature = 0.6;
    check_options(&w, &o);
    o.temperature = 1.7;
    check_options(&w, &o);
    o.top_p = 0.8;
    check_options(&w, &o);
    o.top_p = 1;
    for (o.top_k = 1; o.top_k <= 5; o.top_k++) /* also more than there are */
        check_options(&w, &o);
    o.top_p = 0.9;
    check_options(&w, &o);
    o.top_k = 0;
    o.min_p = 0.3;
    check_options(&w, &o);
    o = options_of(3);
    o.seed = 0;
    o.temperature = 0;
    check_options(&w, &o);
    end_world(&w);
}

START_TEST(all_options)
{
    check_all_options(10);
    check_all_options(1300);
}
END_TEST

/* First and second token together, against the policy's own probabilities. */
START_TEST(frequencies)
{
    enum { N = 4000, VOCAB = 10 };
    world w = make_world(2, VOCAB);
    prefopt_sampler_options o = options_of(N);
    prefopt_dataset *samples;
    OK(prefopt_sample(&samples, w.policy, w.prompts, &o));
    for (int64_t i = 0; i < 3; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        OK(prefopt_dataset_row(samples, i, &row));
        int64_t count[VOCAB * VOCAB] = {0}, offsets[VOCAB * VOCAB + 1] = {0};
        int64_t prompt_len[VOCAB * VOCAB], at = 0;
        int32_t tokens[VOCAB * VOCAB * POSITIONS];
        double p[VOCAB * VOCAB], total = 0;
        for (int32_t k = 0; k < VOCAB * VOCAB; k++) {
            memcpy(tokens + at, row.prompt, (size_t)row.prompt_len * sizeof *tokens);
            at += row.prompt_len;
            tokens[at++] = k / VOCAB;
            tokens[at++] = k % VOCAB;
            offsets[k + 1] = at;
            prompt_len[k] = row.prompt_len;
        }
        prefopt_sequences in = {.struct_size = sizeof in,
                                .n = VOCAB * VOCAB,
                                .tokens = tokens,
                                .offsets = offsets,
                                .prompt_len = prompt_len};
        OK(prefopt_policy_logprobs(w.policy, &in, p, NULL));
        for (int64_t k = 0; k < VOCAB * VOCAB; k++)
            total += p[k] = exp(p[k]);
        CLOSE(total, 1, 1e-6);
        for (int64_t j = 0; j < N; j++) {
            const int32_t *completion = row.completions + row.completion_offsets[j];
            count[completion[0] * VOCAB + completion[1]]++;
        }
        check_counts(VOCAB * VOCAB, count, p);
    }
    prefopt_dataset_destroy(samples);
    end_world(&w);
}
END_TEST

START_TEST(threads_change_no_bit)
{
    prefopt_sampler_options o = options_of(40);
    prefopt_dataset *first = NULL, *other;
    world one = make_world(1, 1300);
    OK(prefopt_sample(&first, one.policy, one.prompts, &o));
    prefopt_columns a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
    OK(prefopt_dataset_columns(first, &a));
    for (int32_t threads = 2; threads <= 4; threads++) {
        world w = make_world(threads, 1300);
        OK(prefopt_sample(&other, w.policy, w.prompts, &o));
        OK(prefopt_dataset_columns(other, &b));
        ck_assert(prefopt_dataset_hash(first) == prefopt_dataset_hash(other));
        ck_assert_mem_eq(a.logp, b.logp, (size_t)a.n_sequences * sizeof *a.logp);
        prefopt_dataset_destroy(other);
        end_world(&w);
    }
    prefopt_dataset_destroy(first);
    end_world(&one);
}
END_TEST

TEST_MAIN("sampler_transitions", all_options, frequencies, threads_change_no_bit)

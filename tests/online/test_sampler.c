/* The sampler against exact distributions over enumerated spaces. */
#include "online/pf_online.h"
#include "pf_config.h"
#include "tests/online/statistics.h"

/* ---- a small world: at most 3 tokens of {0, 1, 2}, 2 ends; three prompts */

enum { VOCAB = 3, HORIZON = 3, EOS = 2, COUNT = 15, PROMPTS = 3 };

static void add_prompt(prefopt_dataset *data, const int32_t *prompt, int64_t len)
{
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = prompt;
    row.prompt_len = len;
    OK(prefopt_dataset_append(data, &row));
}

static prefopt_dataset *three_prompts(prefopt_context *context)
{
    prefopt_dataset *data;
    OK(prefopt_dataset_create(&data, context));
    const int32_t prompt[] = {7, 9, 1};
    add_prompt(data, prompt, 1);
    add_prompt(data, prompt + 1, 2);
    add_prompt(data, NULL, 0);
    return data;
}

static prefopt_space make_space(int64_t vocab, int64_t horizon, int32_t eos)
{
    return (prefopt_space){
        .struct_size = sizeof(prefopt_space), .eos = eos, .vocab = vocab, .horizon = horizon};
}

/* A tabular policy with random logits of standard deviation `spread`. */
static prefopt_policy *tabular(prefopt_context *context, const prefopt_space *space,
                               const prefopt_dataset *prompts, double spread)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    OK(prefopt_dataset_sequences(prompts, &in));
    prefopt_policy *policy;
    OK(prefopt_policy_create_tabular(&policy, context, space, &in));
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    OK(prefopt_policy_parameters(policy, &parameters));
    for (int64_t i = 0; i < parameters.n; i++)
        ((double *)parameters.value)[i] = spread * pf_normal(12, 0, (uint64_t)i);
    OK(prefopt_policy_updated(policy));
    return policy;
}

typedef struct {
    prefopt_context *context;
    prefopt_dataset *prompts;
    prefopt_policy *policy;
} world;

static world make_world(prefopt_context *context)
{
    world w = {.context = context, .prompts = three_prompts(context)};
    prefopt_space space = make_space(VOCAB, HORIZON, EOS);
    w.policy = tabular(context, &space, w.prompts, 1);
    return w;
}

static void end_world(world *w)
{
    prefopt_policy_destroy(w->policy);
    prefopt_dataset_destroy(w->prompts);
    prefopt_context_destroy(w->context);
}

static prefopt_sampler_options options_of(int64_t n)
{
    prefopt_sampler_options o;
    OK(prefopt_sampler_options_init(&o, sizeof o));
    o.n = n;
    return o;
}

static prefopt_row row_of(const prefopt_dataset *data, int64_t i)
{
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(data, i, &row));
    return row;
}

/* Which of row b's completions is row a's completion i; -1: none. */
static int64_t find_completion(const prefopt_row *a, int64_t i, const prefopt_row *b)
{
    int64_t len = a->completion_offsets[i + 1] - a->completion_offsets[i];
    for (int64_t j = 0; j < b->n_completions; j++)
        if (b->completion_offsets[j + 1] - b->completion_offsets[j] == len &&
            memcmp(a->completions + a->completion_offsets[i],
                   b->completions + b->completion_offsets[j], (size_t)len * sizeof(int32_t)) == 0)
            return j;
    return -1;
}

static void check_same(const prefopt_dataset *a, const prefopt_dataset *b)
{
    prefopt_columns x = {.struct_size = sizeof x}, y = {.struct_size = sizeof y};
    OK(prefopt_dataset_columns(a, &x));
    OK(prefopt_dataset_columns(b, &y));
    ck_assert_int_eq(x.n_sequences, y.n_sequences);
    ck_assert(prefopt_dataset_hash(a) == prefopt_dataset_hash(b));
    size_t bytes = (size_t)x.n_sequences * sizeof(double);
    ck_assert(memcmp(x.logp, y.logp, bytes) == 0);
    ck_assert(memcmp(x.sampler_logp, y.sampler_logp, bytes) == 0);
}

/* The exact log-probability of completion i of an enumerated row under truncated sampling. */
static double exact_log_q(world *w, const prefopt_row *row, int64_t i, const pf_truncation *t)
{
    int32_t tokens[8];
    int64_t offsets[] = {0, 0}, order[VOCAB];
    double next[VOCAB], log_q[VOCAB], sum = 0;
    memcpy(tokens, row->prompt, (size_t)row->prompt_len * sizeof *tokens);
    int64_t from = row->completion_offsets[i], len = row->completion_offsets[i + 1] - from;
    for (int64_t h = 0; h < len; h++) {
        offsets[1] = row->prompt_len + h;
        prefopt_sequences in = {.struct_size = sizeof in,
                                .n = 1,
                                .tokens = tokens,
                                .offsets = offsets,
                                .prompt_len = &row->prompt_len};
        OK(prefopt_policy_next_logprobs(w->policy, &in, next));
        pf_truncate(VOCAB, next, t, order, log_q);
        int32_t token = row->completions[from + h];
        sum += log_q[token];
        tokens[row->prompt_len + h] = token;
    }
    return sum;
}

/* Samples of every prompt against the exact distribution, and the two columns. */
static void check_distribution(world *w, const prefopt_sampler_options *o, bool truncated)
{
    pf_truncation t = {o->temperature, o->top_k, o->top_p, o->min_p};
    prefopt_dataset *samples = NULL, *all = NULL;
    OK(prefopt_sample(&samples, w->policy, w->prompts, o));
    OK(prefopt_policy_enumerate(&all, w->policy, w->prompts, 0));
    ck_assert_int_eq(prefopt_dataset_size(samples), PROMPTS);
    for (int64_t i = 0; i < PROMPTS; i++) {
        prefopt_row row = row_of(samples, i), every = row_of(all, i);
        double p[COUNT], log_q[COUNT], total = 0;
        int64_t count[COUNT] = {0};
        ck_assert_int_eq(row.kind, PREFOPT_ROW_COMPLETIONS);
        ck_assert_int_eq(row.n_completions, o->n);
        ck_assert_int_eq(every.n_completions, COUNT);
        ck_assert(row.prompt_len == every.prompt_len);
        for (int64_t c = 0; c < COUNT; c++) {
            log_q[c] = exact_log_q(w, &every, c, &t);
            p[c] = exp(log_q[c]);
            total += p[c];
        }
        CLOSE(total, 1, 1e-12);
        /* Check writes to disk at each of its assertions: one for all samples. */
        double worst_logp = 0, worst_log_q = 0;
        int64_t differ = 0;
        for (int64_t j = 0; j < o->n; j++) {
            int64_t c = find_completion(&row, j, &every);
            if (c < 0)
                ck_abort_msg("completion %d is not of the space", (int)j);
            count[c]++;
            worst_logp = fmax(worst_logp, fabs(row.logp[j] - every.logp[c]));
            worst_log_q = fmax(worst_log_q, fabs(row.sampler_logp[j] - log_q[c]));
            differ += row.logp[j] != row.sampler_logp[j];
        }
        CLOSE(worst_logp, 0, 1e-12);
        CLOSE(worst_log_q, 0, 1e-12);
        ck_assert(truncated ? differ > 0 : differ == 0);
        check_counts(COUNT, count, p);
    }
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(all);
}

START_TEST(draws_follow_the_policy)
{
    world w = make_world(test_context(1));
    prefopt_sampler_options o = options_of(20000);
    check_distribution(&w, &o, false);
    end_world(&w);
}
END_TEST

START_TEST(draws_follow_the_truncated_policy)
{
    world w = make_world(test_context(2));
    prefopt_sampler_options o = options_of(20000);
    o.temperature = 1.5;
    check_distribution(&w, &o, true);
    o.top_k = 2;
    check_distribution(&w, &o, true);
    o.temperature = 1;
    o.top_k = 0;
    o.top_p = 0.7;
    check_distribution(&w, &o, true);
    o = options_of(20000);
    o.temperature = 0.8;
    o.top_k = 2;
    o.top_p = 0.95;
    o.seed = 17;
    o.round = 3;
    check_distribution(&w, &o, true);
    o = options_of(20000);
    o.min_p = 0.5;
    check_distribution(&w, &o, true);
    o.top_p = 0.9;
    o.temperature = 1.2;
    check_distribution(&w, &o, true);
    end_world(&w);
}
END_TEST

/* A completion ends after max_tokens, or with a stop token, which stays; the draws are those of the
 * whole completions. */
START_TEST(completions_end_early)
{
    world w = make_world(test_context(2));
    prefopt_sampler_options o = options_of(300);
    prefopt_dataset *whole, *cut;
    const int32_t stop[] = {1};
    OK(prefopt_sample(&whole, w.policy, w.prompts, &o));
    for (int kind = 0; kind < 3; kind++) {
        o.max_tokens = kind == 0 ? 2 : kind == 1 ? 0 : 100;
        o.stop = kind == 0 ? NULL : stop;
        o.n_stop = kind == 0 ? 0 : 1;
        OK(prefopt_sample(&cut, w.policy, w.prompts, &o));
        int64_t shorter = 0, wrong = 0;
        for (int64_t i = 0; i < PROMPTS; i++) {
            prefopt_row all = row_of(whole, i), got = row_of(cut, i);
            for (int64_t j = 0; j < o.n; j++) {
                const int32_t *a = all.completions + all.completion_offsets[j];
                const int32_t *b = got.completions + got.completion_offsets[j];
                int64_t len = all.completion_offsets[j + 1] - all.completion_offsets[j], n = 0;
                while (n < len && !(kind == 0 ? n == 2 : n > 0 && a[n - 1] == 1))
                    n++;
                wrong += got.completion_offsets[j + 1] - got.completion_offsets[j] != n ||
                         memcmp(a, b, (size_t)n * sizeof *a) != 0;
                shorter += n < len;
            }
        }
        ck_assert_int_eq(wrong, 0);
        ck_assert_int_gt(shorter, 100);
        prefopt_dataset_destroy(cut);
    }
    prefopt_dataset_destroy(whole);
    end_world(&w);
}
END_TEST

/* An options struct of the first release has no min_p and what follows it. */
START_TEST(older_options)
{
    world w = make_world(test_context(1));
    prefopt_sampler_options o = options_of(5);
    prefopt_dataset *a, *b;
    OK(prefopt_sample(&a, w.policy, w.prompts, &o));
    memset(&o, 0x55, sizeof o);
    OK(prefopt_sampler_options_init(&o, offsetof(prefopt_sampler_options, min_p)));
    o.n = 5;
    OK(prefopt_sample(&b, w.policy, w.prompts, &o));
    check_same(a, b);
    prefopt_dataset_destroy(a);
    prefopt_dataset_destroy(b);
    end_world(&w);
}
END_TEST

START_TEST(greedy_takes_the_likeliest)
{
    world w = make_world(test_context(1));
    prefopt_sampler_options o = options_of(3), cold = options_of(1);
    o.temperature = 0;
    cold.temperature = 1e-9;
    prefopt_dataset *greedy, *nearly;
    OK(prefopt_sample(&greedy, w.policy, w.prompts, &o));
    OK(prefopt_sample(&nearly, w.policy, w.prompts, &cold));
    for (int64_t i = 0; i < PROMPTS; i++) {
        prefopt_row row = row_of(greedy, i), one = row_of(nearly, i);
        for (int64_t j = 0; j < 3; j++) {
            ck_assert_int_eq(find_completion(&one, 0, &row), 0);
            ck_assert_int_eq(find_completion(&row, j, &one), 0);
            ck_assert(row.sampler_logp[j] == 0 && row.logp[j] == one.logp[0]);
        }
    }
    prefopt_dataset_destroy(greedy);
    prefopt_dataset_destroy(nearly);
    end_world(&w);
}
END_TEST

START_TEST(greedy_takes_the_lowest_of_equals)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *prompts = three_prompts(context), *greedy;
    prefopt_space space = make_space(4, 5, -1);
    prefopt_policy *policy = tabular(context, &space, prompts, 0);
    prefopt_sampler_options o = options_of(1);
    o.temperature = 0;
    OK(prefopt_sample(&greedy, policy, prompts, &o));
    for (int64_t i = 0; i < PROMPTS; i++) {
        prefopt_row row = row_of(greedy, i);
        ck_assert_int_eq(row.completion_offsets[1], 5);
        for (int64_t t = 0; t < 5; t++)
            ck_assert_int_eq(row.completions[t], 0);
        CLOSE(row.logp[0], 5 * log(0.25), 1e-14);
    }
    prefopt_dataset_destroy(greedy);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
END_TEST

/* Bits that depend on the seed, the round and the row, and on neither threads nor batches. */
START_TEST(what_a_draw_depends_on)
{
    world w = make_world(test_context(1));
    prefopt_sampler_options o = options_of(500), other;
    o.temperature = 0.9;
    o.top_p = 0.9;
    o.seed = 5;
    prefopt_dataset *first, *again;
    OK(prefopt_sample(&first, w.policy, w.prompts, &o));
    for (int32_t k = 0; k < 6; k++) {
        prefopt_context_options c;
        OK(prefopt_context_options_init(&c, sizeof c));
        c.threads = 1 + k % 4;
        c.byte_budget = k == 0 ? 1 : INT64_C(30) << (4 * k);
        prefopt_context *context;
        OK(prefopt_context_create(&context, &c));
        world same = make_world(context);
        OK(prefopt_sample(&again, same.policy, same.prompts, &o));
        check_same(first, again);
        prefopt_dataset_destroy(again);
        end_world(&same);
    }
    /* Fewer completions are the first of many. */
    other = o;
    other.n = 20;
    OK(prefopt_sample(&again, w.policy, w.prompts, &other));
    for (int64_t i = 0; i < PROMPTS; i++) {
        prefopt_row few = row_of(again, i), many = row_of(first, i);
        for (int64_t j = 0; j < 20; j++)
            ck_assert(few.completion_offsets[j + 1] == many.completion_offsets[j + 1]);
        ck_assert(memcmp(few.completions, many.completions,
                         (size_t)few.completion_offsets[20] * sizeof(int32_t)) == 0);
    }
    prefopt_dataset_destroy(again);
    for (int32_t k = 0; k < 2; k++) {
        other = o;
        *(k == 0 ? &other.seed : &other.round) += 1;
        OK(prefopt_sample(&again, w.policy, w.prompts, &other));
        ck_assert(prefopt_dataset_hash(first) != prefopt_dataset_hash(again));
        prefopt_dataset_destroy(again);
    }
    /* One prompt twice: two rows, other draws. */
    int64_t twice[] = {1, 1};
    prefopt_dataset *pair;
    OK(prefopt_dataset_select(&pair, w.prompts, twice, 2));
    OK(prefopt_sample(&again, w.policy, pair, &o));
    prefopt_row a = row_of(again, 0), b = row_of(again, 1);
    ck_assert(a.completion_offsets[500] != b.completion_offsets[500] ||
              memcmp(a.completions, b.completions,
                     (size_t)a.completion_offsets[500] * sizeof(int32_t)) != 0);
    prefopt_dataset_destroy(again);
    prefopt_dataset_destroy(pair);
    prefopt_dataset_destroy(first);
    end_world(&w);
}
END_TEST

/* ---- without replacement */

/* Ordered pairs of distinct completions: p_i p_j / (1 - p_i). */
START_TEST(distinct_draws_follow_the_policy)
{
    enum { ROWS = 20000, K = 4 };
    prefopt_context *context = test_context(1);
    prefopt_dataset *prompts, *samples, *all;
    OK(prefopt_dataset_create(&prompts, context));
    for (int64_t i = 0; i < ROWS; i++)
        add_prompt(prompts, NULL, 0);
    prefopt_space space = make_space(K, 1, -1);
    prefopt_policy *policy = tabular(context, &space, prompts, 1);
    prefopt_sampler_options o = options_of(2);
    o.without_replacement = 1;
    OK(prefopt_sample(&samples, policy, prompts, &o));
    OK(prefopt_policy_enumerate(&all, policy, prompts, 0));
    prefopt_row every = row_of(all, 0);
    int64_t count[K * K] = {0}, first[K] = {0}, differ = 0;
    double p[K], joint[K * K];
    for (int64_t i = 0; i < ROWS; i++) {
        prefopt_row row = row_of(samples, i);
        first[row.completions[0]]++;
        count[row.completions[0] * K + row.completions[1]]++;
        for (int64_t j = 0; j < 2; j++)
            differ +=
                row.logp[j] != every.logp[row.completions[j]] || row.sampler_logp[j] != row.logp[j];
    }
    ck_assert_int_eq(differ, 0);
    for (int64_t i = 0; i < K; i++)
        p[i] = exp(every.logp[i]);
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j < K; j++)
            joint[i * K + j] = i == j ? 0 : p[i] * p[j] / (1 - p[i]);
    check_counts(K, first, p);
    check_counts(K * K, count, joint);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(all);
    prefopt_dataset_destroy(prompts);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(distinct_draws_can_be_all)
{
    world w = make_world(test_context(1));
    prefopt_sampler_options o = options_of(COUNT);
    o.without_replacement = 1;
    prefopt_dataset *samples, *all, *again;
    OK(prefopt_sample(&samples, w.policy, w.prompts, &o));
    OK(prefopt_policy_enumerate(&all, w.policy, w.prompts, 0));
    for (int64_t i = 0; i < PROMPTS; i++) {
        prefopt_row row = row_of(samples, i), every = row_of(all, i);
        int64_t seen[COUNT] = {0};
        for (int64_t j = 0; j < COUNT; j++)
            seen[find_completion(&row, j, &every)]++;
        for (int64_t j = 0; j < COUNT; j++)
            ck_assert_int_eq(seen[j], 1);
    }
    /* Rows are enumerated a few at a time: the same bits. */
    prefopt_context_options c;
    OK(prefopt_context_options_init(&c, sizeof c));
    c.byte_budget = 1;
    prefopt_context *context;
    OK(prefopt_context_create(&context, &c));
    world small = make_world(context);
    OK(prefopt_sample(&again, small.policy, small.prompts, &o));
    check_same(samples, again);
    prefopt_dataset_destroy(again);
    end_world(&small);
    o.round = 1;
    OK(prefopt_sample(&again, w.policy, w.prompts, &o));
    ck_assert(prefopt_dataset_hash(samples) != prefopt_dataset_hash(again));
    prefopt_dataset_destroy(again);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(all);

    prefopt_dataset *untouched = w.prompts;
    o = options_of(16);
    o.without_replacement = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "n is 16, expected at most 15",
          prefopt_sample(&untouched, w.policy, w.prompts, &o));
    ck_assert(untouched == w.prompts);
    end_world(&w);
}
END_TEST

START_TEST(distinct_draws_need_positive_probability)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = make_space(3, 1, -1);
    prefopt_policy *policy;
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    int32_t tokens[] = {0, 2};
    int64_t offsets[] = {0, 1, 2}, prompt_len[] = {0, 0};
    prefopt_sequences in = {sizeof in, 0, 2, tokens, offsets, prompt_len};
    double logp[] = {log(0.5), log(0.5)};
    OK(prefopt_policy_set_logprobs(policy, &in, logp));
    prefopt_dataset *prompts, *samples;
    OK(prefopt_dataset_create(&prompts, context));
    add_prompt(prompts, NULL, 0);
    prefopt_sampler_options o = options_of(3);
    o.without_replacement = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0: n is 3, expected at most 2",
          prefopt_sample(&samples, policy, prompts, &o));
    o.n = 2;
    OK(prefopt_sample(&samples, policy, prompts, &o));
    ck_assert(row_of(samples, 0).completions[0] + row_of(samples, 0).completions[1] == 2);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(prompts);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

/* ---- a policy of the caller's own */

typedef struct {
    int64_t calls, asked[300]; /* sequences a call */
    double scale;              /* of each next-token probability */
    int32_t status;
} own_policy;

static int32_t own_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                            double *token_logp)
{
    (void)payload;
    (void)token_logp;
    for (int64_t i = 0; i < in->n; i++)
        sequence_logp[i] = log(0.5) * (double)(in->offsets[i + 1] - in->offsets[i]);
    return PREFOPT_OK;
}

static int32_t own_next(void *payload, const prefopt_sequences *in, double *next_logp)
{
    own_policy *own = payload;
    if (own->calls < 300)
        own->asked[own->calls] = in->n;
    own->calls++;
    for (int64_t i = 0; i < 2 * in->n; i++)
        next_logp[i] = log(0.5 * own->scale);
    return own->status;
}

static prefopt_policy *own_create(prefopt_context *context, own_policy *own, int64_t horizon,
                                  bool next)
{
    prefopt_space space = make_space(2, horizon, -1);
    prefopt_policy_callbacks callbacks = {.struct_size = sizeof callbacks,
                                          .logprobs = own_logprobs,
                                          .next_logprobs = next ? own_next : NULL};
    prefopt_policy *policy;
    OK(prefopt_policy_create_custom(&policy, context, &space, &callbacks, own));
    return policy;
}

START_TEST(a_prefix_is_asked_for_once)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *prompts = three_prompts(context), *samples;
    own_policy own = {.scale = 1};
    prefopt_policy *policy = own_create(context, &own, 200, true);
    prefopt_sampler_options o = options_of(64);
    OK(prefopt_sample(&samples, policy, prompts, &o));
    ck_assert_int_eq(own.calls, 200);
    ck_assert_int_eq(own.asked[0], PROMPTS);
    ck_assert_int_eq(own.asked[1], 2 * PROMPTS);
    ck_assert_int_eq(own.asked[2], 4 * PROMPTS);
    ck_assert_int_eq(own.asked[199], 64 * PROMPTS);
    prefopt_row row = row_of(samples, 2);
    for (int64_t j = 0; j < 64; j++) {
        ck_assert_int_eq(row.completion_offsets[j + 1], 200 * (j + 1));
        CLOSE(row.logp[j], 200 * log(0.5), 1e-13);
    }
    prefopt_dataset_destroy(samples);
    own.calls = 0;
    o.temperature = 0;
    OK(prefopt_sample(&samples, policy, prompts, &o));
    ck_assert_int_eq(own.asked[199], PROMPTS);
    prefopt_dataset_destroy(samples);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(a_policy_that_fails)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *prompts = three_prompts(context), *samples = prompts;
    own_policy own = {.scale = 0.9};
    prefopt_policy *policy = own_create(context, &own, 3, true);
    FAILS(PREFOPT_ERR_NUMERIC, "row 0, after 0 tokens: the policy's next-token probabilities",
          prefopt_sample(&samples, policy, prompts, NULL));
    own.scale = 1;
    own.status = 77;
    FAILS(PREFOPT_ERR_CALLBACK, "next_logprobs", prefopt_sample(&samples, policy, prompts, NULL));
    own.status = PREFOPT_STOPPED;
    ck_assert_int_eq(prefopt_sample(&samples, policy, prompts, NULL), PREFOPT_STOPPED);
    own.status = PREFOPT_OK;
    own.scale = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "nan", prefopt_sample(&samples, policy, prompts, NULL));
    own.scale = 1;
    ck_assert(samples == prompts);
    OK(prefopt_sample(&samples, policy, prompts, NULL));
    ck_assert_int_eq(row_of(samples, 0).n_completions, 2);
    prefopt_dataset_destroy(samples);
    prefopt_policy_destroy(policy);

    policy = own_create(context, &own, 3, false);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "next_logprobs",
          prefopt_sample(&samples, policy, prompts, NULL));
    /* An enumeration does without. */
    prefopt_sampler_options o = options_of(2);
    o.without_replacement = 1;
    prefopt_dataset *none;
    OK(prefopt_dataset_create(&none, context));
    OK(prefopt_sample(&samples, policy, none, &o));
    ck_assert_int_eq(prefopt_dataset_size(samples), 0);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(none);
    prefopt_policy_destroy(policy);

    policy = own_create(context, &own, 20, false);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "1048576 completions",
          prefopt_sample(&samples, policy, prompts, &o));
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
END_TEST

/* ---- rows and options */

START_TEST(weight_and_fields_go_along)
{
    world w = make_world(test_context(1));
    const int32_t prompt[] = {7}, completions[] = {0, 2, 2};
    const int64_t offsets[] = {0, 2, 3};
    prefopt_dataset *pairs, *samples;
    OK(prefopt_dataset_create(&pairs, w.context));
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_PAIR;
    row.n_completions = 2;
    row.prompt = prompt;
    row.prompt_len = 1;
    row.completions = completions;
    row.completion_offsets = offsets;
    row.weight = 2.5;
    row.label = 0.7;
    row.margin = 1;
#if PF_HAVE_JSON
    row.extra = "{\"id\":4}";
#endif
    OK(prefopt_dataset_append(pairs, &row));
    for (int32_t k = 0; k < 2; k++) {
        prefopt_sampler_options o = options_of(3);
        o.without_replacement = k;
        OK(prefopt_sample(&samples, w.policy, pairs, &o));
        prefopt_row made = row_of(samples, 0);
        ck_assert(made.kind == PREFOPT_ROW_COMPLETIONS && made.n_completions == 3);
        ck_assert(made.prompt_len == 1 && made.prompt[0] == 7 && made.weight == 2.5);
#if PF_HAVE_JSON
        ck_assert_str_eq(made.extra, "{\"id\":4}");
#endif
        prefopt_dataset_destroy(samples);
    }
    prefopt_dataset_destroy(pairs);
    OK(prefopt_dataset_create(&pairs, w.context));
    OK(prefopt_sample(&samples, w.policy, pairs, NULL));
    ck_assert_int_eq(prefopt_dataset_size(samples), 0);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(pairs);
    end_world(&w);
}
END_TEST

static int32_t any_token(void *payload, int64_t row, int64_t completion, int32_t token)
{
    (void)payload;
    (void)row;
    (void)completion;
    (void)token;
    return PREFOPT_OK;
}

START_TEST(refuses)
{
    world w = make_world(test_context(1));
    prefopt_dataset *out = w.prompts;
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_sample(NULL, w.policy, w.prompts, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL", prefopt_sample(&out, NULL, w.prompts, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts is NULL", prefopt_sample(&out, w.policy, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_sampler_options_init(NULL, sizeof(int)));
#define REFUSES(code, text, ...)                                                                   \
    do {                                                                                           \
        prefopt_sampler_options o_ = options_of(2);                                                \
        prefopt_sampler_options *o = &o_;                                                          \
        __VA_ARGS__;                                                                               \
        FAILS(code, text, prefopt_sample(&out, w.policy, w.prompts, o));                           \
    } while (0)
    REFUSES(PREFOPT_ERR_VERSION, "struct_size", o->struct_size = 8);
    REFUSES(PREFOPT_ERR_ARGUMENT, "without_replacement is 2", o->without_replacement = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "n is 0", o->n = 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "temperature is -1", o->temperature = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "temperature is inf", o->temperature = INFINITY);
    REFUSES(PREFOPT_ERR_NUMERIC, "temperature is NaN", o->temperature = NAN);
    REFUSES(PREFOPT_ERR_NUMERIC, "top_p is NaN", o->top_p = NAN);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_k is -1", o->top_k = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_p is 0", o->top_p = 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_p is 1.5", o->top_p = 1.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_k is set", o->temperature = 0, o->top_k = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_p is set", o->temperature = 0, o->top_p = 0.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "seed is set", o->temperature = 0, o->seed = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "round is set", o->temperature = 0, o->round = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "temperature is set", o->without_replacement = 1,
            o->temperature = 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_k is set", o->without_replacement = 1, o->top_k = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_p is set", o->without_replacement = 1, o->top_p = 0.5);
    REFUSES(PREFOPT_ERR_NUMERIC, "min_p is NaN", o->min_p = NAN);
    REFUSES(PREFOPT_ERR_ARGUMENT, "min_p is -0.5", o->min_p = -0.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "min_p is 2", o->min_p = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "max_tokens is -1", o->max_tokens = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "n_stop is -1", o->n_stop = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop is NULL but n_stop is 1", o->n_stop = 1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop is set but n_stop is 0", o->stop = (int32_t[]){1});
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop[1] is 3", o->n_stop = 2, o->stop = ((int32_t[]){1, 3}));
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop[0] is -1", o->n_stop = 1, o->stop = (int32_t[]){-1});
    REFUSES(PREFOPT_ERR_ARGUMENT, "token_payload is set without token", o->token_payload = o);
    REFUSES(PREFOPT_ERR_ARGUMENT, "min_p is set", o->temperature = 0, o->min_p = 0.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "min_p is set", o->without_replacement = 1, o->min_p = 0.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "max_tokens is set", o->without_replacement = 1,
            o->max_tokens = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop is set", o->without_replacement = 1, o->n_stop = 1,
            o->stop = (int32_t[]){1});
    REFUSES(PREFOPT_ERR_ARGUMENT, "token is set", o->without_replacement = 1, o->token = any_token);
    REFUSES(PREFOPT_ERR_MEMORY, "", o->n = INT64_MAX);
    /* A prompt the policy does not know. */
    const int32_t unknown[] = {55};
    add_prompt(w.prompts, unknown, 1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "", o->n = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "", o->without_replacement = 1);
    ck_assert(out == w.prompts);
    end_world(&w);
}
END_TEST

/* Memory that ends at the n-th call: each failure says so and leaves nothing behind. */
static void fail_at_each(const prefopt_sampler_options *o)
{
    counting_allocator allocator = {0};
    world w = make_world(counting_context(&allocator));
    int64_t live = allocator.live, failures = 0;
    for (;; failures++) {
        prefopt_dataset *samples = w.prompts;
        allocator.calls = 0;
        allocator.fail_at = failures + 1;
        int32_t status = prefopt_sample(&samples, w.policy, w.prompts, o);
        allocator.fail_at = 0;
        if (status == PREFOPT_OK) {
            prefopt_dataset_destroy(samples);
            ck_assert_int_eq(allocator.live, live);
            break;
        }
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert(samples == w.prompts);
        ck_assert_int_eq(allocator.live, live);
    }
    ck_assert_int_ge(failures, 8);
    end_world(&w);
    ck_assert_int_eq(allocator.live, 0);
}

START_TEST(memory_may_end)
{
    prefopt_sampler_options o = options_of(40);
    o.temperature = 2;
    o.top_k = 2;
    fail_at_each(&o);
    o = options_of(4);
    o.without_replacement = 1;
    fail_at_each(&o);
}
END_TEST

TEST_MAIN("sampler", draws_follow_the_policy, draws_follow_the_truncated_policy,
          completions_end_early, older_options, greedy_takes_the_likeliest,
          greedy_takes_the_lowest_of_equals, what_a_draw_depends_on,
          distinct_draws_follow_the_policy, distinct_draws_can_be_all,
          distinct_draws_need_positive_probability, a_prefix_is_asked_for_once, a_policy_that_fails,
          weight_and_fields_go_along, refuses, memory_may_end)

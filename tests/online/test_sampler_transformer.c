/* The sampler over a transformer's decoder. */
#include "model/pf_model.h"
#include "pf_test.h"

enum { VOCAB = 700, POSITIONS = 60, PROMPTS = 5 };

typedef struct {
    prefopt_context *context;
    prefopt_dataset *prompts;
    prefopt_policy *policy;
} world;

static prefopt_context *context_of(int32_t threads, int64_t byte_budget)
{
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = threads;
    options.byte_budget = byte_budget;
    prefopt_context *context;
    OK(prefopt_context_create(&context, &options));
    return context;
}

static void add_prompt(prefopt_dataset *data, const int32_t *prompt, int64_t len)
{
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = prompt;
    row.prompt_len = len;
    OK(prefopt_dataset_append(data, &row));
}

static prefopt_dataset *make_prompts(prefopt_context *context)
{
    static const int64_t length[PROMPTS] = {3, 1, 25, POSITIONS - 1, 12};
    prefopt_dataset *data;
    OK(prefopt_dataset_create(&data, context));
    for (int64_t i = 0; i < PROMPTS; i++) {
        int32_t tokens[POSITIONS];
        for (int64_t t = 0; t < length[i]; t++)
            tokens[t] = (int32_t)pf_uniform_int(3, (uint64_t)i, (uint64_t)t, VOCAB);
        add_prompt(data, tokens, length[i]);
    }
    return data;
}

/* Weights large enough that the distributions are far from flat. */
static world make_world(prefopt_context *context)
{
    world w = {.context = context, .prompts = make_prompts(context)};
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = VOCAB;
    c.n_layers = 2;
    c.width = 32;
    c.n_heads = 4;
    c.ff_width = 64;
    c.max_positions = POSITIONS;
    c.init_scale = 0.4;
    OK(prefopt_policy_create_transformer(&w.policy, context, &c, 6));
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
    o.seed = 77;
    return o;
}

static prefopt_row row_of(const prefopt_dataset *data, int64_t i)
{
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(data, i, &row));
    return row;
}

static int64_t length_of(const prefopt_row *row, int64_t j)
{
    return row->completion_offsets[j + 1] - row->completion_offsets[j];
}

/* Both columns: equal bits, or to 1e-5. */
static void check_same(const prefopt_dataset *a, const prefopt_dataset *b, bool bits)
{
    prefopt_columns x = {.struct_size = sizeof x}, y = {.struct_size = sizeof y};
    OK(prefopt_dataset_columns(a, &x));
    OK(prefopt_dataset_columns(b, &y));
    ck_assert_int_eq(x.n_sequences, y.n_sequences);
    ck_assert(prefopt_dataset_hash(a) == prefopt_dataset_hash(b));
    double worst = 0;
    for (int64_t i = 0; i < x.n_sequences; i++)
        worst = fmax(
            worst, fmax(fabs(x.logp[i] - y.logp[i]), fabs(x.sampler_logp[i] - y.sampler_logp[i])));
    ck_assert_msg(worst <= (bits ? 0 : 1e-4), "the columns differ by %g", worst);
}

/* ---- the numbers */

/* logp against prefopt_policy_logprobs; sampler_logp and the draws against the sampler over
 * next_logprobs, which knows nothing of decoders. */
static void check_options(world *w, const prefopt_sampler_options *o)
{
    prefopt_dataset *samples, *plain;
    OK(prefopt_sample(&samples, w->policy, w->prompts, o));
    prefopt_sequences in = {.struct_size = sizeof in};
    OK(prefopt_dataset_sequences(samples, &in));
    prefopt_columns columns = {.struct_size = sizeof columns};
    OK(prefopt_dataset_columns(samples, &columns));
    double *logp = malloc((size_t)in.n * sizeof *logp), worst = 0;
    OK(prefopt_policy_logprobs(w->policy, &in, logp, NULL));
    for (int64_t i = 0; i < in.n; i++)
        worst = fmax(worst, fabs(logp[i] - columns.logp[i]));
    ck_assert_msg(worst <= 1e-4, "logp is off by %g", worst);
    free(logp);
    const pf_policy_extras *extras = w->policy->extras;
    w->policy->extras = NULL;
    w->policy->space.horizon = o->max_tokens; /* next_logprobs ends at max_positions otherwise */
    OK(prefopt_sample(&plain, w->policy, w->prompts, o));
    w->policy->space.horizon = POSITIONS;
    w->policy->extras = extras;
    check_same(samples, plain, false);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(plain);
}

START_TEST(numbers_are_those_of_the_policy)
{
    world w = make_world(test_context(2));
    prefopt_dataset_destroy(w.prompts); /* all may have max_tokens */
    OK(prefopt_dataset_create(&w.prompts, w.context));
    const int32_t prompt[] = {5, 600, 33, 8};
    add_prompt(w.prompts, prompt, 4);
    add_prompt(w.prompts, prompt + 1, 1);
    prefopt_sampler_options o = options_of(12);
    o.max_tokens = 40;
    check_options(&w, &o);
    o.temperature = 0.7;
    check_options(&w, &o);
    o.top_k = 20;
    o.round = 4;
    check_options(&w, &o);
    o.top_p = 0.9;
    check_options(&w, &o);
    o.min_p = 0.2;
    o.top_k = 0;
    check_options(&w, &o);
    o = options_of(3);
    o.seed = 0;
    o.temperature = 0;
    o.max_tokens = 40;
    check_options(&w, &o);
    end_world(&w);
}
END_TEST

/* Threads, waves, and parts of a row's completions: the same bits. */
START_TEST(what_a_draw_depends_on)
{
    prefopt_sampler_options o = options_of(25);
    o.top_p = 0.97;
    world w = make_world(context_of(1, INT64_C(1) << 30));
    prefopt_dataset *all, *other;
    OK(prefopt_sample(&all, w.policy, w.prompts, &o));
    static const int64_t budgets[] = {1, INT64_C(1) << 30, 1000000};
    for (int32_t threads = 1; threads <= 3; threads++) {
        world v = make_world(context_of(threads, budgets[threads - 1]));
        OK(prefopt_sample(&other, v.policy, v.prompts, &o));
        check_same(all, other, true);
        prefopt_dataset_destroy(other);
        end_world(&v);
    }
    /* Fewer completions of fewer rows: the first of them. */
    prefopt_dataset *two;
    OK(prefopt_dataset_create(&two, w.context));
    for (int64_t i = 0; i < 2; i++)
        add_prompt(two, row_of(w.prompts, i).prompt, row_of(w.prompts, i).prompt_len);
    o.n = 7;
    OK(prefopt_sample(&other, w.policy, two, &o));
    int64_t differ = 0;
    for (int64_t i = 0; i < 2; i++) {
        prefopt_row a = row_of(all, i), b = row_of(other, i);
        for (int64_t j = 0; j < 7; j++)
            differ += length_of(&a, j) != length_of(&b, j) || a.logp[j] != b.logp[j] ||
                      memcmp(a.completions + a.completion_offsets[j],
                             b.completions + b.completion_offsets[j],
                             (size_t)length_of(&a, j) * sizeof(int32_t)) != 0;
    }
    ck_assert_int_eq(differ, 0);
    prefopt_dataset_destroy(two);
    prefopt_dataset_destroy(other);
    prefopt_dataset_destroy(all);
    end_world(&w);
}
END_TEST

/* ---- ends */

START_TEST(where_completions_end)
{
    world w = make_world(test_context(2));
    prefopt_sampler_options o = options_of(30);
    int32_t stop[VOCAB / 20];
    for (int32_t i = 0; i < VOCAB / 20; i++)
        stop[i] = 20 * i + 7;
    for (int kind = 0; kind < 3; kind++) {
        o.max_tokens = kind == 1 ? 9 : 0;
        o.stop = kind == 2 ? stop : NULL;
        o.n_stop = kind == 2 ? VOCAB / 20 : 0;
        prefopt_dataset *samples;
        OK(prefopt_sample(&samples, w.policy, w.prompts, &o));
        int64_t by_limit = 0, by_token = 0, wrong = 0;
        for (int64_t i = 0; i < PROMPTS; i++) {
            prefopt_row row = row_of(samples, i);
            int64_t most = POSITIONS - row.prompt_len;
            most = kind == 1 && most > 9 ? 9 : most;
            for (int64_t j = 0; j < o.n; j++) {
                const int32_t *c = row.completions + row.completion_offsets[j];
                int64_t n = length_of(&row, j);
                for (int64_t t = 0; t < n; t++) {
                    bool ends = c[t] == 0 || (kind == 2 && c[t] % 20 == 7);
                    wrong += ends && t + 1 < n;
                    wrong += t + 1 == n && !ends && n != most;
                    by_token += ends;
                }
                by_limit += n == most;
                wrong += n > most || n < 1;
            }
        }
        ck_assert_int_eq(wrong, 0);
        ck_assert_int_gt(by_limit, 20);
        ck_assert(kind != 2 || by_token > 20);
        prefopt_dataset_destroy(samples);
    }
    end_world(&w);
}
END_TEST

/* ---- the callback */

typedef struct {
    int64_t calls, stop_at;
    int32_t answer;
    int32_t tokens[PROMPTS][4][POSITIONS];
    int64_t n[PROMPTS][4];
} heard;

static int32_t hear(void *payload, int64_t row, int64_t completion, int32_t token)
{
    heard *h = payload;
    ck_assert(row >= 0 && row < PROMPTS && completion >= 0 && completion < 4);
    h->tokens[row][completion][h->n[row][completion]++] = token;
    return ++h->calls == h->stop_at ? h->answer : PREFOPT_OK;
}

START_TEST(tokens_are_told)
{
    for (int greedy = 0; greedy < 2; greedy++) {
        world w = make_world(context_of(2, greedy ? 1 : INT64_C(1) << 30));
        prefopt_sampler_options o = options_of(4);
        heard *h = calloc(1, sizeof *h);
        o.token = hear;
        o.token_payload = h;
        if (greedy) {
            o.temperature = 0;
            o.seed = 0;
        }
        prefopt_dataset *samples = NULL;
        OK(prefopt_sample(&samples, w.policy, w.prompts, &o));
        for (int64_t i = 0; i < PROMPTS; i++) {
            prefopt_row row = row_of(samples, i);
            for (int64_t j = 0; j < 4; j++) {
                ck_assert_int_eq(h->n[i][j], length_of(&row, j));
                ck_assert(memcmp(h->tokens[i][j], row.completions + row.completion_offsets[j],
                                 (size_t)length_of(&row, j) * sizeof(int32_t)) == 0);
            }
        }
        prefopt_dataset_destroy(samples);
        samples = NULL;
        const int32_t answers[] = {PREFOPT_STOPPED, PREFOPT_ERR_IO, 99};
        const int32_t codes[] = {PREFOPT_STOPPED, PREFOPT_ERR_IO, PREFOPT_ERR_CALLBACK};
        for (int k = 0; k < 3; k++) {
            memset(h, 0, sizeof *h);
            h->stop_at = 10;
            h->answer = answers[k];
            ck_assert_int_eq(prefopt_sample(&samples, w.policy, w.prompts, &o), codes[k]);
            ck_assert_int_eq(h->calls, 10);
            ck_assert(samples == NULL);
        }
        free(h);
        end_world(&w);
    }
}
END_TEST

/* ---- errors */

START_TEST(refuses)
{
    world w = make_world(test_context(1));
    prefopt_dataset *out = w.prompts, *bad;
    int32_t tokens[POSITIONS + 1] = {0};
    OK(prefopt_dataset_create(&bad, w.context));
    add_prompt(bad, tokens, 3);
    add_prompt(bad, tokens, POSITIONS);
    FAILS(PREFOPT_ERR_ARGUMENT, "row 1: the prompt has 60 tokens, expected 1 to",
          prefopt_sample(&out, w.policy, bad, NULL));
    prefopt_dataset_destroy(bad);
    OK(prefopt_dataset_create(&bad, w.context));
    add_prompt(bad, tokens, 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0: the prompt has 0 tokens",
          prefopt_sample(&out, w.policy, bad, NULL));
    prefopt_dataset_destroy(bad);
    OK(prefopt_dataset_create(&bad, w.context));
    tokens[2] = VOCAB;
    add_prompt(bad, tokens, 3);
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0: token 2 of the prompt is 700",
          prefopt_sample(&out, w.policy, bad, NULL));
    prefopt_dataset_destroy(bad);
    /* No rows at all. */
    OK(prefopt_dataset_create(&bad, w.context));
    OK(prefopt_sample(&out, w.policy, bad, NULL));
    ck_assert_int_eq(prefopt_dataset_size(out), 0);
    prefopt_dataset_destroy(out);
    prefopt_dataset_destroy(bad);
    /* A logit that overflows. */
    out = w.prompts;
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    OK(prefopt_policy_parameters(w.policy, &parameters));
    float *last = (float *)parameters.value + parameters.n - 32;
    for (int64_t i = 0; i < 32; i++) {
        last[i] = 3e38f;
        last[i - VOCAB * 32] = 8; /* the final norm's bias lies before the output matrix */
    }
    OK(prefopt_policy_updated(w.policy));
    FAILS(PREFOPT_ERR_NUMERIC, "row 0, after 0 tokens: the policy's logits are not finite",
          prefopt_sample(&out, w.policy, w.prompts, NULL));
    ck_assert(out == w.prompts);
    end_world(&w);
}
END_TEST

START_TEST(memory_may_end)
{
    counting_allocator allocator = {0};
    world w = make_world(counting_context(&allocator));
    prefopt_sampler_options o = options_of(6);
    o.temperature = 1.3;
    o.max_tokens = 40;
    prefopt_dataset *expected, *samples;
    OK(prefopt_sample(&expected, w.policy, w.prompts, &o));
    int64_t live = allocator.live, failures = 0;
    for (bool done = false; !done; failures++) {
        prefopt_transformer_config c = {.struct_size = sizeof c};
        OK(prefopt_policy_transformer_config(w.policy, &c));
        prefopt_policy *policy; /* a fresh one: it keeps memory from call to call */
        OK(prefopt_policy_create_transformer(&policy, w.context, &c, 6));
        samples = w.prompts;
        allocator.calls = 0;
        allocator.fail_at = failures + 1;
        int32_t status = prefopt_sample(&samples, policy, w.prompts, &o);
        allocator.fail_at = 0;
        done = status == PREFOPT_OK;
        ck_assert(done || (status == PREFOPT_ERR_MEMORY && samples == w.prompts));
        if (!done && failures % 8 == 0) { /* what failed can be asked again */
            OK(prefopt_sample(&samples, policy, w.prompts, &o));
            check_same(samples, expected, true);
        }
        if (samples != w.prompts)
            prefopt_dataset_destroy(samples);
        prefopt_policy_destroy(policy);
        ck_assert_int_eq(allocator.live, live);
    }
    ck_assert_int_ge(failures, 40);
    prefopt_dataset_destroy(expected);
    end_world(&w);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

TEST_MAIN("sampler_transformer", numbers_are_those_of_the_policy, what_a_draw_depends_on,
          where_completions_end, tokens_are_told, refuses, memory_may_end)

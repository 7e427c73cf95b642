/* The sampler against exact distributions over enumerated spaces; what a draw depends on. */
#include "online/pf_online.h"
#include "sampler_test.h"

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

TEST_MAIN("sampler", draws_follow_the_policy, draws_follow_the_truncated_policy,
          completions_end_early, older_options, greedy_takes_the_likeliest,
          greedy_takes_the_lowest_of_equals, what_a_draw_depends_on)

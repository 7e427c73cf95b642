/* The ranker: which pairs each rule makes, ties, floors, labels, and what a pair remembers. */
#include "pf_config.h"
#include "statistics.h"

/* ---- a reward that reads the score from a table by the completion's only token */

typedef struct {
    double score[64];
    int64_t sequences; /* scored so far */
    int32_t status;
} table;

static int32_t table_scores(void *payload, const prefopt_sequences *in, double *score)
{
    table *t = payload;
    for (int64_t i = 0; i < in->n; i++)
        score[i] = t->score[in->tokens[in->offsets[i + 1] - 1]];
    t->sequences += in->n;
    return t->status;
}

typedef struct {
    prefopt_context *context;
    prefopt_reward *reward;
    prefopt_dataset *samples;
    table table;
} world;

/* One row a prompt {p}: completions {0}, {1}, ... with the given scores. */
static void make_world(world *w, prefopt_context *context, int64_t m, const double *score)
{
    *w = (world){.context = context};
    memcpy(w->table.score, score, (size_t)m * sizeof *score);
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = table_scores};
    OK(prefopt_reward_create_custom(&w->reward, context, &callbacks, &w->table));
    OK(prefopt_dataset_create(&w->samples, context));
}

static void end_world(world *w)
{
    prefopt_reward_destroy(w->reward);
    prefopt_dataset_destroy(w->samples);
    prefopt_context_destroy(w->context);
}

/* A row of one-token completions. */
static void add_row(world *w, int32_t prompt, int64_t m, const int32_t *tokens)
{
    int64_t offsets[65];
    for (int64_t i = 0; i <= m; i++)
        offsets[i] = i;
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_COMPLETIONS;
    row.prompt = &prompt;
    row.prompt_len = 1;
    row.n_completions = m;
    row.completions = tokens;
    row.completion_offsets = offsets;
    OK(prefopt_dataset_append(w->samples, &row));
}

static const int32_t numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

static prefopt_ranker_options options_of(int32_t rule)
{
    prefopt_ranker_options o;
    OK(prefopt_ranker_options_init(&o, sizeof o));
    o.rule = rule;
    return o;
}

/* Ranks, checks that the pairs are exactly `expected` ({chosen, rejected} tokens), and the counts
 * that follow. */
static prefopt_rank_counts check_pairs(world *w, const prefopt_ranker_options *o, int64_t n,
                                       const int32_t (*expected)[2])
{
    prefopt_dataset *pairs;
    prefopt_rank_counts counts = {.struct_size = sizeof counts};
    OK(prefopt_rank(&pairs, w->reward, w->samples, o, &counts));
    ck_assert_int_eq(prefopt_dataset_size(pairs), n);
    ck_assert_int_eq(counts.pairs, n);
    prefopt_sequences all = {.struct_size = sizeof all};
    OK(prefopt_dataset_sequences(w->samples, &all));
    double mean = 0;
    for (int64_t s = 0; s < all.n; s++)
        mean += w->table.score[all.tokens[all.offsets[s] + all.prompt_len[s]]] / (double)all.n;
    CLOSE(counts.mean_score, mean, 1e-12);
    for (int64_t i = 0; i < n; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        OK(prefopt_dataset_row(pairs, i, &row));
        ck_assert_int_eq(row.kind, PREFOPT_ROW_PAIR);
        ck_assert_int_eq(row.completion_offsets[1], 1);
        ck_assert_int_eq(row.completion_offsets[2], 2);
        ck_assert_msg(row.completions[0] == expected[i][0] && row.completions[1] == expected[i][1],
                      "pair %d is %d over %d, expected %d over %d", (int)i, row.completions[0],
                      row.completions[1], expected[i][0], expected[i][1]);
        ck_assert(row.score[0] == w->table.score[row.completions[0]]);
        ck_assert(row.score[1] == w->table.score[row.completions[1]]);
        double difference = row.score[0] - row.score[1];
        double label = o->soft_labels ? prefopt_sigmoid(o->soft_scale * difference)
                       : difference == 0 && o->tie_rule == PREFOPT_TIES_HALF ? 0.5
                                                                             : 1;
        ck_assert(row.label == label && row.margin == 0 && row.weight == 1);
    }
    prefopt_dataset_destroy(pairs);
    return counts;
}

START_TEST(each_rule_makes_its_pairs)
{
    world w;
    /* mean 2.6, sd 3.7: mean - 2 sd is -4.8, and -3 is nearest. */
    const double score[] = {1, 8, 5, -3, 2};
    make_world(&w, test_context(1), 5, score);
    add_row(&w, 7, 5, numbers);
    prefopt_ranker_options o = options_of(PREFOPT_PAIR_TOP_BOTTOM);
    prefopt_rank_counts c = check_pairs(&w, &o, 1, (const int32_t[][2]){{1, 3}});
    ck_assert(c.duplicates == 0 && c.ties == 0 && c.below_floor == 0 && c.empty_rows == 0);
    o.rule = PREFOPT_PAIR_BEST_AGAINST_EACH;
    check_pairs(&w, &o, 4, (const int32_t[][2]){{1, 0}, {1, 2}, {1, 3}, {1, 4}});
    o.rule = PREFOPT_PAIR_ALL;
    check_pairs(
        &w, &o, 10,
        (const int32_t[][2]){
            {1, 0}, {2, 0}, {0, 3}, {4, 0}, {1, 2}, {1, 3}, {1, 4}, {2, 3}, {2, 4}, {4, 3}});
    o.rule = PREFOPT_PAIR_BEST_MEAN_2SD;
    check_pairs(&w, &o, 1, (const int32_t[][2]){{1, 3}});
    o.rule = PREFOPT_PAIR_ALL;
    o.soft_labels = 1;
    o.soft_scale = 0.25;
    o.margin_floor = 4;
    c = check_pairs(&w, &o, 7,
                    (const int32_t[][2]){{1, 0}, {2, 0}, {0, 3}, {1, 3}, {1, 4}, {2, 3}, {4, 3}});
    ck_assert_int_eq(c.below_floor, 3);
    end_world(&w);
}
END_TEST

/* The one nearest to mean - 2 sd need not be the worst, and is never the best. */
START_TEST(mean_minus_2sd)
{
    world w;
    /* mean 0, sd 14.02: the target is -28.05, and -20 is nearer than -40. */
    const double score[] = {-40, -20, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6};
    make_world(&w, test_context(1), 12, score);
    add_row(&w, 7, 12, numbers);
    prefopt_ranker_options o = options_of(PREFOPT_PAIR_BEST_MEAN_2SD);
    check_pairs(&w, &o, 1, (const int32_t[][2]){{2, 1}});
    /* The squares of these would overflow. */
    for (int64_t i = 0; i < 12; i++)
        w.table.score[i] *= 1e300;
    check_pairs(&w, &o, 1, (const int32_t[][2]){{2, 1}});
    /* sd with divisor n: the target is -29.3, nearest is -26. With n - 1 it would be -34. */
    const double other[] = {9, 4, -34, -3, 7, 3, 3, -26, 4, 2, 4, -2.4545454545454546};
    memcpy(w.table.score, other, sizeof other);
    check_pairs(&w, &o, 1, (const int32_t[][2]){{0, 7}});
    /* All alike: the target is the score of all, and the pair is a tie of two others. */
    for (int64_t i = 0; i < 12; i++)
        w.table.score[i] = 0;
    o.tie_rule = PREFOPT_TIES_HALF;
    check_pairs(&w, &o, 1, (const int32_t[][2]){{0, 1}});
    end_world(&w);
}
END_TEST

START_TEST(tie_rules)
{
    world w;
    const double score[] = {1, 4, 4, 1};
    make_world(&w, test_context(1), 4, score);
    add_row(&w, 7, 4, numbers);
    prefopt_ranker_options o = options_of(PREFOPT_PAIR_ALL);
    const int32_t without[][2] = {{1, 0}, {2, 0}, {1, 3}, {2, 3}};
    const int32_t with[][2] = {{1, 0}, {2, 0}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};
    ck_assert_int_eq(check_pairs(&w, &o, 4, without).ties, 2);
    o.tie_rule = PREFOPT_TIES_FIRST;
    ck_assert_int_eq(check_pairs(&w, &o, 6, with).ties, 0);
    o.tie_rule = PREFOPT_TIES_HALF;
    ck_assert_int_eq(check_pairs(&w, &o, 6, with).ties, 0);
    o.soft_labels = 1;
    check_pairs(&w, &o, 6, with);
    o.tie_rule = PREFOPT_TIES_FIRST;
    check_pairs(&w, &o, 6, with);
    /* The best is the first of the highest, the worst the last of the lowest. */
    o = options_of(PREFOPT_PAIR_TOP_BOTTOM);
    check_pairs(&w, &o, 1, (const int32_t[][2]){{1, 3}});
    o.margin_floor = 3;
    ck_assert_int_eq(check_pairs(&w, &o, 1, (const int32_t[][2]){{1, 3}}).below_floor, 0);
    o.margin_floor = 3.0000001;
    prefopt_rank_counts c = check_pairs(&w, &o, 0, NULL);
    ck_assert(c.below_floor == 1 && c.empty_rows == 1 && c.ties == 0);
    end_world(&w);
}
END_TEST

START_TEST(duplicates_are_ranked_once)
{
    world w;
    const double score[] = {3, 1, 2, 0};
    make_world(&w, test_context(1), 4, score);
    const int32_t repeated[] = {1, 0, 1, 2, 0, 0}, alike[] = {2, 2, 2}, single[] = {3};
    add_row(&w, 7, 6, repeated);
    add_row(&w, 8, 3, alike);
    add_row(&w, 7, 1, single);
    add_row(&w, 7, 2, repeated); /* the same sequences in another row are no duplicates */
    prefopt_ranker_options o = options_of(PREFOPT_PAIR_ALL);
    o.tie_rule = PREFOPT_TIES_HALF;
    prefopt_rank_counts c =
        check_pairs(&w, &o, 4, (const int32_t[][2]){{0, 1}, {2, 1}, {0, 2}, {0, 1}});
    ck_assert_int_eq(c.duplicates, 5);
    ck_assert_int_eq(c.empty_rows, 2);
    ck_assert_int_eq(c.ties, 0);
    /* 7 0, 7 1, 7 2, 8 2 and 7 3. */
    ck_assert_int_eq(w.table.sequences, 5);
    end_world(&w);
}
END_TEST

START_TEST(random_rules)
{
    enum { ROWS = 6000, M = 4 };
    world w;
    const double score[] = {3, 5, 1, 2};
    make_world(&w, test_context(1), M, score);
    for (int32_t i = 0; i < ROWS; i++)
        add_row(&w, i, M, numbers);
    for (int32_t rule = PREFOPT_PAIR_RANDOM; rule <= PREFOPT_PAIR_BEST_RANDOM; rule++) {
        prefopt_ranker_options o = options_of(rule);
        prefopt_dataset *pairs, *again;
        int64_t count[M * M] = {0}, moved = 0;
        double p[M * M] = {0};
        OK(prefopt_rank(&pairs, w.reward, w.samples, &o, NULL));
        ck_assert_int_eq(prefopt_dataset_size(pairs), ROWS);
        for (int64_t i = 0; i < ROWS; i++) {
            prefopt_row row = {.struct_size = sizeof row};
            OK(prefopt_dataset_row(pairs, i, &row));
            moved += row.prompt[0] != i;
            count[row.completions[0] * M + row.completions[1]]++;
        }
        for (int64_t a = 0; a < M; a++)
            for (int64_t b = 0; b < M; b++)
                if (score[a] > score[b] && (rule == PREFOPT_PAIR_RANDOM || a == 1))
                    p[a * M + b] = rule == PREFOPT_PAIR_RANDOM ? 1.0 / 6 : 1.0 / 3;
        ck_assert_int_eq(moved, 0);
        check_counts(M * M, count, p);
        OK(prefopt_rank(&again, w.reward, w.samples, &o, NULL));
        ck_assert(prefopt_dataset_hash(pairs) == prefopt_dataset_hash(again));
        prefopt_dataset_destroy(again);
        o.seed = 1;
        OK(prefopt_rank(&again, w.reward, w.samples, &o, NULL));
        ck_assert(prefopt_dataset_hash(pairs) != prefopt_dataset_hash(again));
        prefopt_dataset_destroy(again);
        prefopt_dataset_destroy(pairs);
    }
    end_world(&w);
}
END_TEST

START_TEST(a_pair_remembers)
{
    world w;
    const double score[] = {1, 2, 3};
    make_world(&w, test_context(1), 3, score);
    /* Completions of several tokens: the last one scores. */
    const int32_t prompt[] = {4, 5}, completions[] = {9, 9, 0, 8, 2, 7, 7, 7, 1};
    const int64_t offsets[] = {0, 3, 5, 9};
    const double logp[] = {-1, -2, -3}, sampler[] = {-0.1, -0.2, -0.3}, ref[] = {-5, NAN, -7};
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_COMPLETIONS;
    row.prompt = prompt;
    row.prompt_len = 2;
    row.n_completions = 3;
    row.completions = completions;
    row.completion_offsets = offsets;
    row.logp = logp;
    row.sampler_logp = sampler;
    row.ref_logp = ref;
    row.weight = 3;
#if PF_HAVE_JSON
    row.extra = "{\"id\":4}";
#endif
    OK(prefopt_dataset_append(w.samples, &row));
    prefopt_dataset *pairs;
    OK(prefopt_rank(&pairs, w.reward, w.samples, NULL, NULL));
    OK(prefopt_dataset_row(pairs, 0, &row));
    const int32_t expected[] = {8, 2, 9, 9, 0};
    ck_assert(row.kind == PREFOPT_ROW_PAIR && row.weight == 3 && row.label == 1);
    ck_assert(row.prompt_len == 2 && memcmp(row.prompt, prompt, sizeof prompt) == 0);
    ck_assert(row.completion_offsets[1] == 2 && row.completion_offsets[2] == 5);
    ck_assert(memcmp(row.completions, expected, sizeof expected) == 0);
    ck_assert(row.score[0] == 3 && row.score[1] == 1);
    ck_assert(row.logp[0] == -2 && row.logp[1] == -1);
    ck_assert(row.sampler_logp[0] == -0.2 && row.sampler_logp[1] == -0.1);
    ck_assert(isnan(row.ref_logp[0]) && row.ref_logp[1] == -5);
#if PF_HAVE_JSON
    ck_assert_str_eq(row.extra, "{\"id\":4}");
#endif
    prefopt_dataset_destroy(pairs);
    end_world(&w);
}
END_TEST

START_TEST(annotate_fills_the_scores)
{
    world w;
    const double score[] = {1.5, -2, 3};
    make_world(&w, test_context(1), 3, score);
    add_row(&w, 2, 3, numbers);
    add_row(&w, 2, 1, numbers + 1);
    OK(prefopt_reward_annotate(w.reward, w.samples));
    prefopt_columns columns = {.struct_size = sizeof columns};
    OK(prefopt_dataset_columns(w.samples, &columns));
    const double expected[] = {1.5, -2, 3, -2};
    ck_assert(memcmp(columns.score, expected, sizeof expected) == 0);
    w.table.score[1] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 1", prefopt_reward_annotate(w.reward, w.samples));
    OK(prefopt_dataset_columns(w.samples, &columns));
    ck_assert(memcmp(columns.score, expected, sizeof expected) == 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL", prefopt_reward_annotate(NULL, w.samples));
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_reward_annotate(w.reward, NULL));
    end_world(&w);
}
END_TEST

/* ---- failures */

START_TEST(bad_scores_are_named)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    world w;
    const double score[] = {1, 2, 3, 4};
    make_world(&w, test_context(1), 4, score);
    const int32_t repeated[] = {0, 1, 1, 3};
    add_row(&w, 7, 3, repeated);
    add_row(&w, 8, 4, repeated);
    prefopt_dataset *pairs = w.samples;
    prefopt_rank_counts counts = {.struct_size = sizeof counts, .pairs = 99};
    for (int64_t k = 0; k < 3; k++) {
        w.table.score[3] = bad[k];
        FAILS(PREFOPT_ERR_NUMERIC, "row 1, completion 3",
              prefopt_rank(&pairs, w.reward, w.samples, NULL, &counts));
    }
    w.table.score[3] = 4;
    w.table.status = PREFOPT_ERR_IO;
    FAILS(PREFOPT_ERR_IO, "scores", prefopt_rank(&pairs, w.reward, w.samples, NULL, &counts));
    w.table.status = 12;
    FAILS(PREFOPT_ERR_CALLBACK, "12", prefopt_rank(&pairs, w.reward, w.samples, NULL, &counts));
    w.table.status = PREFOPT_STOPPED;
    ck_assert_int_eq(prefopt_rank(&pairs, w.reward, w.samples, NULL, &counts), PREFOPT_STOPPED);
    ck_assert(pairs == w.samples && counts.pairs == 99);
    end_world(&w);
}
END_TEST

START_TEST(refuses)
{
    world w;
    const double score[] = {1, 2};
    make_world(&w, test_context(1), 2, score);
    prefopt_dataset *out = w.samples;
    FAILS(PREFOPT_ERR_ARGUMENT, "samples has no row",
          prefopt_rank(&out, w.reward, w.samples, NULL, NULL));
    add_row(&w, 7, 2, numbers);
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_rank(NULL, w.reward, w.samples, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL", prefopt_rank(&out, NULL, w.samples, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "samples is NULL", prefopt_rank(&out, w.reward, NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_ranker_options_init(NULL, 64));
#define REFUSES(code, text, ...)                                                                   \
    do {                                                                                           \
        prefopt_ranker_options o_ = options_of(0);                                                 \
        prefopt_ranker_options *o = &o_;                                                           \
        __VA_ARGS__;                                                                               \
        FAILS(code, text, prefopt_rank(&out, w.reward, w.samples, o, NULL));                       \
    } while (0)
    REFUSES(PREFOPT_ERR_VERSION, "struct_size", o->struct_size = 4);
    REFUSES(PREFOPT_ERR_ARGUMENT, "rule is 6", o->rule = 6);
    REFUSES(PREFOPT_ERR_ARGUMENT, "rule is -1", o->rule = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "tie_rule is 3", o->tie_rule = 3);
    REFUSES(PREFOPT_ERR_ARGUMENT, "soft_labels is 2", o->soft_labels = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "soft_scale is 2, but", o->soft_scale = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "soft_scale is 0", o->soft_labels = 1, o->soft_scale = 0);
    REFUSES(PREFOPT_ERR_NUMERIC, "soft_scale is NaN", o->soft_labels = 1, o->soft_scale = NAN);
    REFUSES(PREFOPT_ERR_ARGUMENT, "margin_floor is -1", o->margin_floor = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "margin_floor is inf", o->margin_floor = INFINITY);
    REFUSES(PREFOPT_ERR_NUMERIC, "margin_floor is NaN", o->margin_floor = NAN);
    REFUSES(PREFOPT_ERR_ARGUMENT, "tie_rule is 2, but", o->margin_floor = 1, o->tie_rule = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "seed is 3, but rule 0", o->seed = 3);
    prefopt_rank_counts small = {.struct_size = 8};
    FAILS(PREFOPT_ERR_VERSION, "prefopt_rank_counts",
          prefopt_rank(&out, w.reward, w.samples, NULL, &small));
    int32_t token = 1;
    OK(prefopt_dataset_append_pair(w.samples, &token, 1, &token, 1, numbers, 1, 1, 1, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "row 1 of samples is of kind 2",
          prefopt_rank(&out, w.reward, w.samples, NULL, NULL));
    ck_assert(out == w.samples);
    end_world(&w);
}
END_TEST

START_TEST(memory_may_end)
{
    counting_allocator allocator = {0};
    world w;
    const double score[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    make_world(&w, counting_context(&allocator), 10, score);
    for (int32_t i = 0; i < 5; i++)
        add_row(&w, i, 10, numbers);
    prefopt_ranker_options o = options_of(PREFOPT_PAIR_ALL);
    int64_t live = allocator.live, failures = 0;
    for (;; failures++) {
        prefopt_dataset *pairs = w.samples;
        prefopt_rank_counts counts = {.struct_size = sizeof counts, .pairs = 99};
        allocator.calls = 0;
        allocator.fail_at = failures + 1;
        int32_t status = prefopt_rank(&pairs, w.reward, w.samples, &o, &counts);
        allocator.fail_at = 0;
        if (status == PREFOPT_OK) {
            ck_assert_int_eq(counts.pairs, 5 * 45);
            prefopt_dataset_destroy(pairs);
            ck_assert_int_eq(allocator.live, live);
            break;
        }
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert(pairs == w.samples && counts.pairs == 99);
        ck_assert_int_eq(allocator.live, live);
    }
    ck_assert_int_ge(failures, 10);
    /* annotate: one array. */
    allocator.calls = 0;
    allocator.fail_at = 1;
    FAILS(PREFOPT_ERR_MEMORY, "no memory", prefopt_reward_annotate(w.reward, w.samples));
    allocator.fail_at = 0;
    end_world(&w);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

TEST_MAIN("ranker", each_rule_makes_its_pairs, mean_minus_2sd, tie_rules,
          duplicates_are_ranked_once, random_rules, a_pair_remembers, annotate_fills_the_scores,
          bad_scores_are_named, refuses, memory_may_end)

/* Rounds on a transformer: completions that end or do not, the penalty, the same bits for any
 * number of threads, steps within a byte budget. */
#include "rounds_test.h"
#include "small_transformer.h"

enum { EOS = 2, PROMPTS = 6, MOST = 6000 };

typedef struct {
    prefopt_policy *policy;
    prefopt_reference *reference;
    prefopt_reward *reward;
    prefopt_dataset *prompts;
    int64_t n_parameters;
} setting;

/* The share of even tokens: it does not care for an end. */
static int32_t even_scores(void *payload, const prefopt_sequences *in, double *score)
{
    (void)payload;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t first = in->offsets[i] + in->prompt_len[i], n = in->offsets[i + 1] - first,
                even = 0;
        for (int64_t k = 0; k < n; k++)
            even += in->tokens[first + k] % 2 == 0;
        score[i] = n > 0 ? (double)even / (double)n : 0;
    }
    return PREFOPT_OK;
}

/* The same less 0.37 where neither EOS nor *stop is the last token. */
static int32_t penalised_scores(void *payload, const prefopt_sequences *in, double *score)
{
    const int32_t *stop = payload;
    OK(even_scores(NULL, in, score));
    for (int64_t i = 0; i < in->n; i++) {
        int32_t last = in->tokens[in->offsets[i + 1] - 1];
        score[i] -= last == EOS || last == *stop ? 0 : 0.37;
    }
    return PREFOPT_OK;
}

static setting setting_new(prefopt_context *context)
{
    setting s = {0};
    prefopt_transformer_config c = small_config();
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = even_scores};
    c.eos = EOS;
    c.init_scale = 0.3;
    OK(prefopt_policy_create_transformer(&s.policy, context, &c, 5));
    OK(prefopt_reference_freeze(&s.reference, s.policy));
    OK(prefopt_reward_create_custom(&s.reward, context, &callbacks, NULL));
    OK(prefopt_dataset_create(&s.prompts, context));
    for (int32_t i = 0; i < PROMPTS; i++) {
        prefopt_row row;
        int32_t prompt[] = {i, 11};
        OK(prefopt_row_init(&row, sizeof row));
        row.prompt = prompt;
        row.prompt_len = 1 + i % 2;
        OK(prefopt_dataset_append(s.prompts, &row));
    }
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(s.policy, &p));
    s.n_parameters = p.n;
    ck_assert_int_le(p.n, MOST);
    return s;
}

static void setting_free(setting *s)
{
    prefopt_policy_destroy(s->policy);
    prefopt_reference_destroy(s->reference);
    prefopt_reward_destroy(s->reward);
    prefopt_dataset_destroy(s->prompts);
}

static sampled_options options_of(bool pg)
{
    sampled_options o = sampled_defaults();
    o.sampler.n = 8;
    o.sampler.max_tokens = 6;
    o.sampler.seed = 4;
    o.train.learning_rate = 1e-2;
    o.train.batch = 4;
    o.rounds.prompts = PROMPTS;
    o.rounds.steps = 4;
    o.rounds.refresh = 1;
    o.rounds.missing_end_penalty = 0.5;
    if (pg) {
        o.pg.beta = 0.05;
        o.pg.kl_placement = PREFOPT_KL_IN_LOSS;
        o.pg.clip_low = o.pg.clip_high = 0.2;
        o.rounds.reward_scale = PREFOPT_REWARD_STANDARDISE;
    }
    return o;
}

static prefopt_trainer *trainer_of(const setting *s, bool pg, const sampled_options *o)
{
    prefopt_trainer *t = NULL;
    if (pg)
        OK(prefopt_trainer_create_policy_gradient(&t, s->policy, s->reference, s->reward,
                                                  s->prompts, &o->pg, &o->sampler, &o->rounds,
                                                  &o->train));
    else
        OK(prefopt_trainer_create_online_dpo(&t, s->policy, s->reference, s->reward, s->prompts,
                                             &o->dpo, &o->sampler, &o->ranker, &o->rounds,
                                             &o->train));
    return t;
}

static prefopt_progress run(prefopt_context *context, bool pg, const sampled_options *o,
                            int64_t steps, float *value)
{
    setting s = setting_new(context);
    prefopt_trainer *trainer = trainer_of(&s, pg, o);
    prefopt_progress last = {.struct_size = sizeof last};
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_trainer_run(trainer, steps, &last));
    OK(prefopt_policy_parameters(s.policy, &p));
    memcpy(value, p.value, (size_t)p.n * sizeof *value);
    prefopt_trainer_destroy(trainer);
    setting_free(&s);
    return last;
}

static int64_t ended_of(const prefopt_dataset *samples, int32_t stop)
{
    prefopt_sequences in = sequences_of(samples);
    int64_t ended = 0;
    for (int64_t i = 0; i < in.n; i++) {
        int32_t last = in.tokens[in.offsets[i + 1] - 1];
        ended += last == EOS || last == stop;
    }
    return ended;
}

/* Against the sampler and the ranker by hand, with a reward that has the penalty in it. */
START_TEST(ends_are_counted_and_asked_for)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    static int32_t stops[] = {-1, 7};
    for (int32_t i = 0; i < 2; i++) {
        sampled_options o = options_of(false);
        o.rounds.steps = 1;
        o.rounds.refresh = 0;
        o.rounds.missing_end_penalty = 0.37;
        o.train.batch = 0;
        o.ranker.rule = PREFOPT_PAIR_ALL;
        if (i == 1) {
            o.sampler.stop = &stops[i];
            o.sampler.n_stop = 1;
        }
        prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks,
                                              .scores = penalised_scores};
        prefopt_reward *penalised;
        prefopt_dataset *samples, *pairs;
        prefopt_rank_counts counts = {.struct_size = sizeof counts}, plain = counts;
        OK(prefopt_reward_create_custom(&penalised, context, &callbacks, &stops[i]));
        OK(prefopt_sample(&samples, s.policy, s.prompts, &o.sampler));
        OK(prefopt_rank(&pairs, s.reward, samples, &o.ranker, &plain));
        prefopt_dataset_destroy(pairs);
        OK(prefopt_rank(&pairs, penalised, samples, &o.ranker, &counts));
        int64_t n = sequences_of(samples).n, ended = ended_of(samples, stops[i]);
        ck_assert(ended > n / 20 && ended < n - n / 20);
        ck_assert_int_lt(counts.ties, plain.ties);
        prefopt_trainer *trainer = trainer_of(&s, false, &o);
        prefopt_progress last = {.struct_size = sizeof last};
        OK(prefopt_trainer_run(trainer, 1, &last));
        CLOSE(last.ended, (double)ended / (double)n, 1e-12);
        CLOSE(last.score_mean, plain.mean_score, 1e-12);
        CLOSE(last.reward, counts.mean_score, 1e-12);
        ck_assert_int_eq(last.pairs, counts.pairs);
        ck_assert_int_eq(last.ties, counts.ties);
        ck_assert_int_eq(last.duplicates, counts.duplicates);
        prefopt_trainer_destroy(trainer);
        prefopt_dataset_destroy(samples);
        prefopt_dataset_destroy(pairs);
        prefopt_reward_destroy(penalised);
    }
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* A penalty teaches to end: the reward does not. */
START_TEST(penalties_teach_to_end)
{
    prefopt_context *context = test_context(1);
    double ended[2];
    for (int32_t with = 0; with < 2; with++) {
        static float value[MOST];
        sampled_options o = options_of(true);
        o.rounds.missing_end_penalty = with;
        o.rounds.reward_scale = PREFOPT_REWARD_AS_IS;
        o.rounds.refresh = 0;
        ended[with] = run(context, true, &o, 100, value).ended;
    }
    ck_assert_msg(ended[1] > 0.9 && ended[1] > ended[0] + 0.2, "ended %g without, %g with",
                  ended[0], ended[1]);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(threads_do_not_matter)
{
    for (int32_t pg = 0; pg < 2; pg++) {
        static float value[3][MOST];
        prefopt_progress last[3];
        sampled_options o = options_of(pg != 0);
        for (int32_t threads = 1; threads <= 3; threads++) {
            prefopt_context *context = test_context(threads);
            last[threads - 1] = run(context, pg != 0, &o, 11, value[threads - 1]);
            prefopt_context_destroy(context);
        }
        for (int32_t i = 1; i < 3; i++) {
            ck_assert_mem_eq(value[0], value[i], sizeof *value);
            ck_assert_double_eq(last[0].loss, last[i].loss);
            ck_assert_double_eq(last[0].kl, last[i].kl);
            ck_assert_double_eq(last[0].score_sd, last[i].score_sd);
        }
        ck_assert_int_eq(last[0].round, 2);
    }
}
END_TEST

/* The most bytes that were asked for at once. */
static struct {
    int64_t largest;
} asked;

static void *watched_allocate(void *payload, uint64_t size, uint64_t alignment)
{
    (void)payload;
    asked.largest = (int64_t)size > asked.largest ? (int64_t)size : asked.largest;
    return aligned_alloc((size_t)alignment,
                         (size_t)((size + alignment - 1) / alignment * alignment));
}

static void watched_release(void *payload, void *pointer)
{
    (void)payload;
    free(pointer);
}

static prefopt_context *watched_context(int64_t budget)
{
    prefopt_context *context = NULL;
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = 1;
    options.byte_budget = budget;
    options.allocate = watched_allocate;
    options.release = watched_release;
    OK(prefopt_context_create(&context, &options));
    asked.largest = 0;
    return context;
}

/* A first round's steps in parts are those in one: the samples are the same, the rest is rounding.
 */
START_TEST(steps_keep_to_the_budget)
{
    for (int32_t pg = 0; pg < 2; pg++) {
        static float value[2][MOST];
        sampled_options o = options_of(pg != 0);
        o.train.optimiser = PREFOPT_SGD;
        o.train.learning_rate = 0.1;
        o.sampler.n = 32;
        int64_t largest[2];
        for (int32_t small = 0; small < 2; small++) {
            prefopt_context *context = watched_context(small ? 60000 : INT64_C(1) << 28);
            prefopt_progress last = run(context, pg != 0, &o, 4, value[small]);
            ck_assert_int_eq(last.round, 0);
            largest[small] = asked.largest;
            prefopt_context_destroy(context);
        }
        ck_assert_msg(largest[1] <= 60000 && largest[0] > 2 * largest[1], "%lld, %lld",
                      (long long)largest[0], (long long)largest[1]);
        for (int32_t k = 0; k < MOST; k++)
            ck_assert_msg(fabsf(value[0][k] - value[1][k]) < 2e-5F, "parameter %d: %g, %g", k,
                          value[0][k], value[1][k]);
    }
}
END_TEST

TEST_MAIN("rounds_transformer", ends_are_counted_and_asked_for, penalties_teach_to_end,
          threads_do_not_matter, steps_keep_to_the_budget)

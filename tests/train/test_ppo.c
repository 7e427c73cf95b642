/* Policy gradients on rounds of several steps: every step's gradient against central differences of
 * the surrogate, put together by hand from the samples; rewards against direct computation; KL
 * estimates against exact ones. */
#include "rounds_test.h"
#include "train/pf_train.h"

enum { MOST = 512 }; /* samples of a round by hand, parameters, completions */

/* A round by hand. */
typedef struct {
    prefopt_dataset *samples;
    int64_t n, group; /* samples; of each prompt */
    double reward[MOST], advantage[MOST], ref[MOST], old[MOST], raw[MOST];
    double ended;
    bool used[MOST]; /* by the step at hand */
} hand_round;

/* What all rounds so far had for rewards, before the scale. */
typedef struct {
    int64_t n;
    double reward[8 * MOST];
} history;

static double mean_of(int64_t n, const double *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

static double sd_of(int64_t n, const double *x)
{
    double mean = mean_of(n, x), sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return n < 2 ? 0 : sqrt(sum / (double)(n - 1));
}

/* Penalty, scale and clip, in two passes over all that was seen. */
static void rewards_by_hand(const rounds_world *s, const sampled_options *o, hand_round *r,
                            history *past)
{
    prefopt_sequences in = sequences_of(r->samples);
    OK(prefopt_reward_scores(s->reward, &in, r->raw));
    r->ended = 0;
    for (int64_t i = 0; i < r->n; i++) {
        bool ends = in.tokens[in.offsets[i + 1] - 1] == s->w.space.eos;
        r->ended += ends ? 1 / (double)r->n : 0;
        r->reward[i] = r->raw[i] - (ends ? 0 : o->rounds.missing_end_penalty);
        past->reward[past->n++] = r->reward[i];
        ck_assert_int_le(past->n, 8 * MOST);
    }
    bool running = o->rounds.reward_scale == PREFOPT_REWARD_RUNNING;
    int64_t n = running ? past->n : r->n;
    const double *from = past->reward + past->n - n;
    double mean = mean_of(n, from), sd = sd_of(n, from), clip = o->rounds.reward_clip;
    for (int64_t i = 0; i < r->n; i++) {
        if (o->rounds.reward_scale != PREFOPT_REWARD_AS_IS)
            r->reward[i] = (r->reward[i] - mean) / sd;
        if (clip > 0)
            r->reward[i] = r->reward[i] > clip ? clip : r->reward[i] < -clip ? -clip : r->reward[i];
    }
}

/* The mean of the others is the baseline. */
static void draw_by_hand(const rounds_world *s, prefopt_policy *policy, const sampled_options *o,
                         uint64_t number, hand_round *r, history *past)
{
    prefopt_sampler_options sampler = o->sampler;
    sampler.round = number;
    OK(prefopt_sample(&r->samples, policy, s->w.prompts, &sampler));
    prefopt_sequences in = sequences_of(r->samples);
    prefopt_columns columns = columns_of(r->samples);
    r->n = in.n;
    r->group = sampler.n;
    ck_assert_int_le(r->n, MOST);
    memcpy(r->old, columns.sampler_logp, (size_t)r->n * sizeof *r->old);
    OK(prefopt_reference_logprobs(s->reference, &in, r->ref));
    rewards_by_hand(s, o, r, past);
    double total[MOST];
    for (int64_t i = 0; i < r->n; i++) {
        total[i] = r->reward[i];
        if (o->pg.kl_placement == PREFOPT_KL_IN_REWARD)
            total[i] -= o->pg.beta * (columns.logp[i] - r->ref[i]);
        r->used[i] = true;
    }
    for (int64_t i = 0; i < r->n; i++) {
        double sum = 0;
        for (int64_t j = i / r->group * r->group; j < (i / r->group + 1) * r->group; j++)
            sum += j == i ? 0 : total[j];
        r->advantage[i] = total[i] - sum / (double)(r->group - 1);
    }
}

static double estimator(int32_t kind, double u)
{
    return kind == PREFOPT_KL_K1 ? u : kind == PREFOPT_KL_K2 ? 0.5 * u * u : exp(-u) - 1 + u;
}

/* The surrogate of the samples in use at the policy's log-probabilities; fixed: k2's weights, which
 * its gradient leaves as they are. Counts what the clip takes. */
static double surrogate(const hand_round *r, const sampled_options *o, const double *logp,
                        const double *fixed, double *clipped, double *kl)
{
    double loss = 0, n = 0, estimate = 0;
    *clipped = 0;
    for (int64_t i = 0; i < r->n; i++)
        n += r->used[i];
    for (int64_t i = 0; i < r->n; i++) {
        if (!r->used[i])
            continue;
        double a = r->advantage[i], rho = exp(logp[i] - r->old[i]), u = logp[i] - r->ref[i];
        double low = 1 - o->pg.clip_low, high = 1 + o->pg.clip_high, term = a * rho;
        if (o->pg.clip_high > 0 && ((a > 0 && rho > high) || (a < 0 && rho < low))) {
            term = a * (a > 0 ? high : low);
            *clipped += 1 / n;
        }
        loss -= term / n;
        bool k2 = o->pg.kl_estimator == PREFOPT_KL_K2;
        estimate += (k2 ? fixed[i] : rho) * estimator(o->pg.kl_estimator, u) / n;
    }
    *kl = estimate;
    return loss + (o->pg.kl_placement == PREFOPT_KL_IN_LOSS ? o->pg.beta * estimate : 0);
}

static double surrogate_at(const hand_round *r, const sampled_options *o, prefopt_policy *policy,
                           const double *fixed, double *clipped, double *kl)
{
    double logp[MOST];
    prefopt_sequences in = sequences_of(r->samples);
    OK(prefopt_policy_logprobs(policy, &in, logp, NULL));
    return surrogate(r, o, logp, fixed, clipped, kl);
}

/* Central differences at the policy's parameters. */
static void differences(const hand_round *r, const sampled_options *o, prefopt_policy *policy,
                        const double *fixed, double *grad)
{
    enum { STEPS = 2 }; /* Richardson: of h and h / 2 */
    prefopt_parameters p = parameters_of(policy);
    double *value = p.value, unused[2];
    for (int64_t k = 0; k < p.n; k++) {
        double at = value[k], d[STEPS];
        for (int32_t j = 0; j < STEPS; j++) {
            double h = 1e-4 / (1 << j), side[2];
            for (int32_t i = 0; i < 2; i++) {
                value[k] = i == 0 ? at + h : at - h;
                OK(prefopt_policy_updated(policy));
                side[i] = surrogate_at(r, o, policy, fixed, &unused[0], &unused[1]);
            }
            d[j] = (side[0] - side[1]) / (2 * h);
        }
        value[k] = at;
        grad[k] = (4 * d[1] - d[0]) / 3;
    }
    OK(prefopt_policy_updated(policy));
}

/* The rows of the step in use, by the order that the trainer shuffles a round's rows in. */
static void use_rows(hand_round *r, const sampled_options *o, int64_t number, int64_t place)
{
    int64_t prompts = r->n / r->group, batch = o->train.batch;
    if (batch == 0 || batch >= prompts || o->rounds.steps == 1)
        return;
    uint64_t seed = number == 0 ? o->train.seed : pf_stream(o->train.seed, (uint64_t)number);
    memset(r->used, 0, sizeof r->used);
    for (int64_t k = 0; k < batch; k++) {
        int64_t order[MOST], at = place * batch + k;
        pf_permutation(seed, pf_stream(PF_STREAM_BATCHES, (uint64_t)(at / prompts)), prompts,
                       order);
        for (int64_t j = 0; j < r->group; j++)
            r->used[order[at % prompts] * r->group + j] = true;
    }
}

/* Runs some rounds and checks every step; how often the clip took something away. */
static double walk(prefopt_context *context, int32_t eos, const sampled_options *o, int64_t rounds)
{
    rounds_world s = rounds_world_new(context, 3, 3, 2, eos);
    prefopt_policy *policy = tabular_policy(&s.w);
    randomise(policy, 8, 0.5);
    prefopt_parameters p = parameters_of(policy);
    prefopt_trainer *trainer = pg_of(&s, policy, o);
    static history past;
    double taken = 0;
    past.n = 0;
    ck_assert_int_le(p.n, MOST);
    for (int64_t number = 0; number < rounds; number++) {
        hand_round r;
        draw_by_hand(&s, policy, o, (uint64_t)number, &r, &past);
        for (int64_t place = 0; place < o->rounds.steps; place++) {
            double fixed[MOST], grad[MOST], before[MOST], clipped, kl;
            prefopt_sequences in = sequences_of(r.samples);
            use_rows(&r, o, number, place);
            OK(prefopt_policy_logprobs(policy, &in, fixed, NULL));
            for (int64_t i = 0; i < r.n; i++)
                fixed[i] = exp(fixed[i] - r.old[i]);
            differences(&r, o, policy, fixed, grad);
            double loss = surrogate_at(&r, o, policy, fixed, &clipped, &kl);
            memcpy(before, p.value, (size_t)p.n * sizeof *before);
            prefopt_progress last = {.struct_size = sizeof last};
            OK(prefopt_trainer_run(trainer, 1, &last));
            for (int64_t k = 0; k < p.n; k++) {
                double got = (before[k] - ((double *)p.value)[k]) / o->train.learning_rate;
                ck_assert_msg(fabs(got - grad[k]) < 1e-8,
                              "round %lld, step %lld, parameter %lld: %.12g, by hand %.12g",
                              (long long)number, (long long)place, (long long)k, got, grad[k]);
            }
            CLOSE(last.loss, loss, 1e-10);
            CLOSE(last.kl, kl, 1e-10);
            CLOSE(last.reward, mean_of(r.n, r.reward), 1e-10);
            CLOSE(last.score_mean, mean_of(r.n, r.raw), 1e-12);
            CLOSE(last.score_sd, sd_of(r.n, r.raw), 1e-12);
            ck_assert_int_eq(last.round, number);
            if (eos >= 0)
                CLOSE(last.ended, r.ended, 1e-12);
            if (o->pg.clip_high > 0)
                CLOSE(last.clip_fraction, clipped, 1e-12);
            else
                ck_assert(isnan(last.clip_fraction));
            taken += clipped;
        }
        prefopt_dataset_destroy(r.samples);
    }
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    rounds_world_free(&s);
    return taken;
}

static sampled_options ppo_defaults(void)
{
    sampled_options o = sampled_defaults();
    o.train.optimiser = PREFOPT_SGD;
    o.train.learning_rate = 0.5;
    o.sampler.n = 6;
    o.sampler.seed = 3;
    o.rounds.prompts = 3;
    o.rounds.steps = 3;
    return o;
}

/* Wherever the KL is and whatever estimates it; on-policy steps too. */
START_TEST(gradients_are_those_of_the_surrogate)
{
    prefopt_context *context = test_context(1);
    for (int64_t steps = 1; steps <= 3; steps += 2)
        for (int32_t placement = 0; placement < 2; placement++)
            for (int32_t kind = PREFOPT_KL_K1; kind <= PREFOPT_KL_K3; kind++) {
                sampled_options o = ppo_defaults();
                o.rounds.steps = steps;
                o.pg.beta = 0.3;
                o.pg.kl_placement = placement;
                o.pg.kl_estimator = kind;
                walk(context, -1, &o, 2);
            }
    prefopt_context_destroy(context);
}
END_TEST

/* Warmer samples are weighted by their ratio from the first step on. */
START_TEST(other_samplers_are_off_policy)
{
    prefopt_context *context = test_context(1);
    sampled_options o = ppo_defaults();
    o.rounds.steps = 1;
    o.pg.beta = 0.3;
    o.sampler.temperature = 1.4;
    walk(context, -1, &o, 2);
    o.pg.kl_placement = PREFOPT_KL_IN_LOSS;
    o.pg.kl_estimator = PREFOPT_KL_K2;
    walk(context, -1, &o, 2);
    o.sampler.temperature = 1;
    o.sampler.min_p = 0.5;
    walk(context, -1, &o, 2);
    prefopt_context_destroy(context);
}
END_TEST

/* The clip takes gradients away, in whole rounds and in batches of a round's prompts. */
START_TEST(clips_take_gradients_away)
{
    prefopt_context *context = test_context(1);
    for (int64_t batch = 0; batch < 3; batch++) {
        sampled_options o = ppo_defaults();
        o.train.batch = batch;
        o.train.learning_rate = 2;
        o.train.seed = 9;
        o.rounds.steps = 5;
        ck_assert_double_eq(walk(context, -1, &o, 2), 0);
        o.pg.clip_low = 0.05;
        o.pg.clip_high = 0.1;
        ck_assert_double_gt(walk(context, -1, &o, 2), 0.3);
    }
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(rewards_are_penalised_scaled_and_clipped)
{
    prefopt_context *context = test_context(1);
    for (int32_t scale = PREFOPT_REWARD_AS_IS; scale <= PREFOPT_REWARD_RUNNING; scale++)
        for (int32_t clip = 0; clip < 2; clip++) {
            sampled_options o = ppo_defaults();
            o.rounds.steps = 2;
            o.rounds.reward_scale = scale;
            o.rounds.reward_clip = clip == 0 ? 0 : scale == PREFOPT_REWARD_AS_IS ? 0.4 : 0.8;
            o.rounds.missing_end_penalty = 0.7;
            o.pg.beta = 0.2;
            walk(context, 2, &o, 4);
        }
    prefopt_context_destroy(context);
}
END_TEST

/* The mean and variance of an estimate's term under the policy that sampled, exactly. */
static void exact_terms(const rounds_world *s, const double *old, const double *now, int32_t kind,
                        double *mean, double *variance)
{
    double square = 0;
    *mean = 0;
    for (int64_t i = 0; i < s->w.n; i++) {
        double q = exp(old[i]) / (double)s->w.n_prompts;
        double term = exp(now[i] - old[i]) * estimator(kind, now[i] - s->ref[i]);
        *mean += q * term;
        square += q * term * term;
    }
    *variance = square - *mean * *mean;
}

/* The estimates of kl, with samples of the policy itself and of one that it has moved away from. */
START_TEST(kl_estimates_are_near_exact)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 2, 3, 2, -1);
    for (int32_t kind = PREFOPT_KL_K1; kind <= PREFOPT_KL_K3; kind++) {
        sampled_options o = ppo_defaults();
        prefopt_policy *policy = tabular_policy(&s.w);
        randomise(policy, 8, 0.5);
        o.sampler.n = 4000;
        o.rounds.prompts = 2;
        o.rounds.steps = 2;
        o.pg.kl_estimator = kind;
        prefopt_trainer *trainer = pg_of(&s, policy, &o);
        double *old = all_logps(&s.w, policy);
        for (int32_t step = 0; step < 2; step++) {
            double *now = all_logps(&s.w, policy), exact = 0, mean, variance;
            for (int64_t i = 0; i < s.w.n; i++)
                exact += exp(now[i]) * (now[i] - s.ref[i]) / (double)s.w.n_prompts;
            exact_terms(&s, old, now, kind, &mean, &variance);
            if (kind != PREFOPT_KL_K2)
                CLOSE(mean, exact, 1e-12);
            prefopt_progress last = {.struct_size = sizeof last};
            OK(prefopt_trainer_run(trainer, 1, &last));
            double error = sqrt(variance / (2 * 4000));
            ck_assert_msg(fabs(last.kl - mean) < 4 * error, "k%d: %g, exactly %g +- %g", kind + 1,
                          last.kl, mean, error);
            ck_assert_double_lt(error, 0.1 * exact);
            free(now);
        }
        free(old);
        prefopt_trainer_destroy(trainer);
        prefopt_policy_destroy(policy);
    }
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("ppo", gradients_are_those_of_the_surrogate, other_samplers_are_off_policy,
          clips_take_gradients_away, rewards_are_penalised_scaled_and_clipped,
          kl_estimates_are_near_exact)

#include "gap_arms.h"

#include <math.h>
#include <time.h>

#include "cli.h"

const char *const gap_arm_key[N_GAP_ARMS] = {
    "offline",      "twice",          "by_reward", "by_truth",     "one_top",
    "one_random",   "one_2sd",        "fresh_top", "fresh_random", "fresh_2sd",
    "one_from_dpo", "fresh_from_dpo", "gradient",  "distil"};
const char *const gap_arm_label[N_GAP_ARMS] = {"offline DPO",
                                               "offline, twice the pairs",
                                               "offline, ordered by the reward model",
                                               "offline, ordered by the truth",
                                               "one round, top against bottom",
                                               "one round, best against random",
                                               "one round, best against mean - 2 sd",
                                               "fresh, top against bottom",
                                               "fresh, best against random",
                                               "fresh, best against mean - 2 sd",
                                               "one round, from offline DPO",
                                               "fresh, from offline DPO",
                                               "policy gradient, leave-one-out",
                                               "best-of-n distillation"};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int rule_of(gap_arm arm)
{
    switch (arm) {
    case ARM_ONE_TOP:
    case ARM_FRESH_TOP:
        return PREFOPT_PAIR_TOP_BOTTOM;
    case ARM_ONE_2SD:
    case ARM_FRESH_2SD:
        return PREFOPT_PAIR_BEST_MEAN_2SD;
    default:
        return PREFOPT_PAIR_BEST_RANDOM;
    }
}

static prefopt_ranker_options ranker_of(const gap_models *m, int rule)
{
    prefopt_ranker_options ranker;
    CALL(prefopt_ranker_options_init(&ranker, sizeof ranker));
    ranker.rule = rule;
    if (rule == PREFOPT_PAIR_BEST_RANDOM)
        ranker.seed = m->world.seed;
    return ranker;
}

/* The offline pairs put in order by another judge. */
static prefopt_dataset *ordered_by(const gap_models *m, prefopt_reward *judge)
{
    prefopt_dataset *both, *pairs;
    prefopt_ranker_options ranker = ranker_of(m, PREFOPT_PAIR_TOP_BOTTOM);
    CALL(prefopt_dataset_create(&both, m->world.context));
    for (int64_t i = 0; i < prefopt_dataset_size(m->pairs); i++) {
        prefopt_row row = {.struct_size = sizeof row};
        CALL(prefopt_dataset_row(m->pairs, i, &row));
        row.kind = PREFOPT_ROW_COMPLETIONS;
        CALL(prefopt_dataset_append(both, &row));
    }
    CALL(prefopt_rank(&pairs, judge, both, &ranker, NULL));
    prefopt_dataset_destroy(both);
    return pairs;
}

static prefopt_dataset *one_round(const gap_models *m, gap_arm arm)
{
    prefopt_dataset *samples, *pairs;
    prefopt_ranker_options ranker = ranker_of(m, rule_of(arm));
    int from_dpo = arm == ARM_ONE_FROM_DPO;
    samples = gap_samples(m, from_dpo ? m->offline : m->sft, m->sizes.samples, (uint64_t)from_dpo);
    CALL(prefopt_rank(&pairs, m->reward, samples, &ranker, NULL));
    prefopt_dataset_destroy(samples);
    return pairs;
}

/* The pairs that a DPO arm trains on; NULL for the arms that sample as they go. */
static prefopt_dataset *arm_pairs(gap_models *m, gap_arm arm)
{
    switch (arm) {
    case ARM_OFFLINE:
        return gap_pairs(m, m->world.train, 0, m->sizes.n_pairs, STREAM_PAIRS);
    case ARM_TWICE:
        return gap_pairs(m, m->world.train, 0, 2 * m->sizes.n_pairs, STREAM_PAIRS);
    case ARM_BY_REWARD:
        return ordered_by(m, m->reward);
    case ARM_BY_TRUTH:
        return ordered_by(m, m->world.truth);
    case ARM_ONE_TOP:
    case ARM_ONE_RANDOM:
    case ARM_ONE_2SD:
    case ARM_ONE_FROM_DPO:
        return one_round(m, arm);
    default:
        return NULL;
    }
}

/* How often chosen and rejected of the pairs are successes. */
static void put_pairs(const gap_models *m, const prefopt_dataset *pairs, const char *key,
                      gap_record *out)
{
    prefopt_sequences s = {.struct_size = sizeof s};
    CALL(prefopt_dataset_sequences(pairs, &s));
    double *reward = doubles(s.n), sum[2] = {0, 0}, either = 0;
    CALL(prefopt_reward_scores(m->world.truth, &s, reward));
    for (int64_t i = 0; i < s.n; i += 2) {
        sum[0] += reward[i] / m->world.scale;
        sum[1] += reward[i + 1] / m->world.scale;
        either += reward[i] != reward[i + 1];
    }
    gap_put(out, (double)(s.n / 2), "%s.pairs", key);
    gap_put(out, sum[0] / (double)(s.n / 2), "%s.chosen_success", key);
    gap_put(out, sum[1] / (double)(s.n / 2), "%s.rejected_success", key);
    gap_put(out, either / (double)(s.n / 2), "%s.informative", key);
    free(reward);
}

static prefopt_trainer *distil_trainer(gap_models *m, prefopt_policy *policy,
                                       const prefopt_train_options *train)
{
    prefopt_dataset *pairs = one_round(m, ARM_ONE_TOP), *best;
    prefopt_trainer *trainer;
    CALL(prefopt_dataset_create(&best, m->world.context));
    for (int64_t i = 0; i < prefopt_dataset_size(pairs); i++) {
        prefopt_row row = {.struct_size = sizeof row};
        CALL(prefopt_dataset_row(pairs, i, &row));
        row.kind = PREFOPT_ROW_COMPLETIONS;
        row.n_completions = 1;
        CALL(prefopt_dataset_append(best, &row));
    }
    CALL(prefopt_trainer_create_mle(&trainer, policy, best, train));
    prefopt_dataset_destroy(best);
    prefopt_dataset_destroy(pairs);
    return trainer;
}

/* pairs: what a DPO arm trains on. */
static prefopt_trainer *arm_trainer(gap_models *m, gap_arm arm, const gap_setting *setting,
                                    prefopt_policy *policy, const prefopt_dataset *pairs)
{
    prefopt_train_options train = gap_train_options(m, setting->learning_rate);
    prefopt_trainer *trainer;
    prefopt_dpo_options dpo;
    prefopt_sampler_options sampler;
    CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
    CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
    dpo.beta = setting->beta;
    sampler.n = m->sizes.fresh_samples;
    sampler.seed = m->world.seed;
    sampler.round = 1000000;
    if (pairs != NULL) {
        CALL(prefopt_trainer_create_dpo(&trainer, policy, m->reference, pairs, &dpo, &train));
    } else if (arm == ARM_DISTIL) {
        return distil_trainer(m, policy, &train);
    } else if (arm == ARM_GRADIENT) {
        prefopt_pg_options pg;
        CALL(prefopt_pg_options_init(&pg, sizeof pg));
        pg.beta = setting->beta;
        /* As many sequences a step as a DPO step has. */
        train.batch = 2 * m->sizes.batch / m->sizes.fresh_samples;
        CALL(prefopt_trainer_create_policy_gradient(&trainer, policy, m->reference, m->reward,
                                                    m->prompts, &pg, &sampler, NULL, &train));
    } else {
        prefopt_ranker_options ranker = ranker_of(m, rule_of(arm));
        CALL(prefopt_trainer_create_online_dpo(&trainer, policy, m->reference, m->reward,
                                               m->prompts, &dpo, &sampler, &ranker, NULL, &train));
    }
    return trainer;
}

static void put_exact(const gap_models *m, prefopt_policy *policy, const char *key,
                      const char *suffix, double *walk_logp, gap_record *out)
{
    if (m->world.degree == 0)
        return;
    gap_exact e = gap_tree_evaluate(&m->held, policy, walk_logp);
    gap_put(out, e.success, "%s.hit%s", key, suffix);
    gap_put(out, e.kl, "%s.kl%s", key, suffix);
    gap_put(out, e.legal, "%s.legal%s", key, suffix);
}

static void put_whole(const gap_models *m, prefopt_policy *policy, const prefopt_dataset *pairs,
                      const char *key, gap_record *out)
{
    gap_sampled(out, key, "", &m->world, policy, m->reference, m->world.held,
                m->sizes.held_samples);
    if (m->world.degree > 0) {
        double *walk_logp = doubles(m->train.n_walks), uncovered, success;
        gap_exact e = gap_tree_evaluate(&m->train, policy, walk_logp);
        gap_put(out, e.success, "%s.train_hit", key);
        gap_tree_uncovered(&m->train, pairs != NULL ? pairs : m->pairs, walk_logp, &uncovered,
                           &success);
        gap_put(out, uncovered, "%s.uncovered", key);
        gap_put(out, success, "%s.uncovered_hit", key);
        free(walk_logp);
    }
    if (pairs != NULL) {
        prefopt_displacement moved = {.struct_size = sizeof moved};
        CALL(prefopt_report_displacement(&moved, pairs, m->reference, policy));
        gap_put(out, moved.chosen, "%s.moved_chosen", key);
        gap_put(out, moved.rejected, "%s.moved_rejected", key);
        gap_put(out, moved.chosen_fell, "%s.chosen_fell", key);
        gap_put(out, moved.both_fell, "%s.both_fell", key);
    }
}

void gap_arm_run(gap_models *m, gap_arm arm, const gap_setting *setting, int n_checkpoints,
                 const int64_t *checkpoint, int whole, gap_record *out)
{
    const char *key = gap_arm_key[arm];
    int from_dpo = arm == ARM_ONE_FROM_DPO || arm == ARM_FRESH_FROM_DPO;
    prefopt_policy *policy = gap_policy_copy(m, from_dpo ? m->offline : m->sft);
    double start = seconds();
    prefopt_dataset *pairs = arm_pairs(m, arm);
    prefopt_trainer *trainer = arm_trainer(m, arm, setting, policy, pairs);
    int64_t at = 0;
    double spent = seconds() - start;
    if (pairs != NULL && whole)
        put_pairs(m, pairs, key, out);
    for (int i = 0; i < n_checkpoints; i++) {
        char suffix[32];
        start = seconds();
        CALL(prefopt_trainer_run(trainer, checkpoint[i] - at, NULL));
        at = checkpoint[i];
        spent += seconds() - start;
        snprintf(suffix, sizeof suffix, "@%lld", (long long)at);
        if (m->world.degree > 0 && i == n_checkpoints - 1)
            put_exact(m, policy, key, suffix, NULL, out);
        gap_sampled(out, key, suffix, &m->world, policy, NULL, m->world.held,
                    m->sizes.held_samples);
    }
    gap_put(out, spent, "%s.seconds", key);
    gap_greedy(out, key, &m->world, policy, m->world.held);
    if (whole)
        put_whole(m, policy, pairs, key, out);
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(pairs);
    if (arm == ARM_OFFLINE) {
        prefopt_policy_destroy(m->offline);
        m->offline = policy;
    } else
        prefopt_policy_destroy(policy);
}

static void put_best_of(const gap_models *m, const double *walk_logp, const double *score,
                        const char *name, gap_record *out)
{
    for (int64_t n = 1; n <= 64; n *= 2)
        gap_put(out, gap_tree_best_of(&m->held, n, walk_logp, score), "%s.best_of_%lld", name,
                (long long)n);
}

/* A policy trained as a reward of its own: DPO's implicit one, or (local) beta sum log pi. */
static void judge_by_policy(const gap_models *m, const gap_setting *setting, int local,
                            const double *sft_logp, gap_record *out)
{
    const char *name = local ? "local" : "implicit";
    prefopt_space space = {.struct_size = sizeof space,
                           .eos = -1,
                           .vocab = m->world.vocab,
                           .horizon = m->world.length};
    prefopt_reference *uniform;
    prefopt_reward *reward;
    prefopt_trainer *trainer;
    prefopt_dpo_options dpo;
    prefopt_train_options train = gap_train_options(m, setting->learning_rate);
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    prefopt_policy *policy = gap_policy_copy(m, m->sft);
    /* Beside a uniform reference the implicit reward is the local one less a constant. */
    CALL(prefopt_reference_create_uniform(&uniform, m->world.context, &space));
    prefopt_reference *reference = local ? uniform : m->reference;
    CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.beta = setting->beta;
    CALL(prefopt_reward_create_implicit(&reward, policy, reference, setting->beta));
    CALL(prefopt_trainer_create_dpo(&trainer, policy, reference, m->pairs, &dpo, &train));
    CALL(prefopt_policy_parameters(policy, &parameters));
    int64_t best = gap_train_to_best(m, trainer, reward, parameters, setting->steps,
                                     setting->steps > 600 ? 100 : 50);
    CALL(prefopt_policy_updated(policy));
    gap_put(out, (double)best, "%s.step", name);
    gap_put_fit(m, reward, name, out);
    if (m->world.degree > 0) {
        double *score = doubles(m->held.n_walks);
        gap_tree_evaluate(&m->held, policy, score);
        for (int64_t i = 0; i < m->held.n_walks && !local; i++)
            score[i] -= sft_logp[i];
        put_best_of(m, sft_logp, score, name, out);
        free(score);
    }
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(uniform);
    prefopt_policy_destroy(policy);
}

void gap_judges_run(gap_models *m, const gap_setting *setting, gap_record *out)
{
    double *sft_logp = NULL;
    if (m->world.degree > 0) {
        sft_logp = doubles(m->held.n_walks);
        double *score = doubles(m->held.n_walks);
        put_exact(m, m->sft, "sft", "", sft_logp, out);
        put_best_of(m, sft_logp, m->held.success, "oracle", out);
        gap_tree_scores(&m->held, m->reward, score);
        put_best_of(m, sft_logp, score, "reward", out);
        free(score);
    }
    judge_by_policy(m, setting, 0, sft_logp, out);
    judge_by_policy(m, setting, 1, sft_logp, out);
    free(sft_logp);
}

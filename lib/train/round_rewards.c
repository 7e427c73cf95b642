/* A round's scores, and what the objectives make of them before they learn: the penalty on
 * completions that do not end, the scale, the clip. */
#include <math.h>

#include "train/pf_sampled.h"

/* ---- moments */

void pf_moments_add(pf_moments *m, double x)
{
    double before = x - m->mean;
    m->n++;
    m->mean += before / (double)m->n;
    m->square += before * (x - m->mean);
}

double pf_moments_sd(const pf_moments *m)
{
    return m->n < 2 ? 0 : sqrt(m->square / (double)(m->n - 1));
}

/* ---- scores */

/* Samples are of the prompts from `first` on. */
typedef struct {
    const pf_batch *prompts;
    int64_t first;
} prompt_range;

static int64_t prompt_row(const prompt_range *of, const pf_sampled *s, int64_t sample)
{
    return pf_batch_row(of->prompts, of->first + sample / s->sampler.n);
}

/* Sequence by sequence, to name the row. */
static int32_t name_bad_sample(const pf_sampled *s, const prompt_range *prompts,
                               const prefopt_sequences *in, int32_t status)
{
    for (int64_t i = 0; i < in->n; i++) {
        double score;
        prefopt_sequences one = pf_sequences_part(in, i, 1);
        int32_t again = pf_reward_scores(s->reward, &one, &score);
        if (again < 0)
            return pf_fail_in(again, "row %lld, sample %lld: reward",
                              (long long)prompt_row(prompts, s, i), (long long)(i % s->sampler.n));
    }
    return pf_fail(status, "the reward model failed on %lld samples together but on none alone",
                   (long long)in->n);
}

/* score: in->n; index: in->n places among the distinct ones; of_distinct: as many. */
static int32_t score_distinct(const pf_sampled *s, const prompt_range *prompts,
                              const prefopt_sequences *in, const prefopt_sequences *distinct,
                              const int64_t *index, double *of_distinct, double *score)
{
    int32_t status = pf_reward_scores(s->reward, distinct, of_distinct);
    if (status == PREFOPT_ERR_NUMERIC || status == PREFOPT_ERR_ARGUMENT)
        return name_bad_sample(s, prompts, in, status);
    PF_TRY(status);
    for (int64_t i = 0; i < in->n; i++) {
        score[i] = of_distinct[index[i]];
        if (!isfinite(score[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "row %lld, sample %lld: the score is %g, expected a finite number",
                           (long long)prompt_row(prompts, s, i), (long long)(i % s->sampler.n),
                           score[i]);
    }
    return PREFOPT_OK;
}

int32_t pf_sampled_score(const pf_sampled *s, const pf_batch *prompts, int64_t first,
                         prefopt_dataset *samples)
{
    const prompt_range of = {prompts, first};
    prefopt_context *context = s->draws.context;
    prefopt_sequences in = {.struct_size = sizeof in};
    PF_TRY(prefopt_dataset_sequences(samples, &in));
    pf_sequence_map *map = NULL;
    int64_t *index = pf_alloc(context, in.n, sizeof *index);
    double *score = pf_alloc(context, in.n, sizeof *score);
    double *of_distinct = pf_alloc(context, in.n, sizeof *of_distinct);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (index != NULL && score != NULL && of_distinct != NULL)
        status = pf_sequence_map_create(&map, context, &in, PF_MAP_SEQUENCES, index);
    if (status == PREFOPT_OK)
        status = score_distinct(s, &of, &in, pf_sequence_map_view(map), index, of_distinct, score);
    if (status == PREFOPT_OK)
        status = prefopt_dataset_set_column(samples, PREFOPT_COLUMN_SCORE, score);
    pf_sequence_map_destroy(map);
    pf_free(context, index);
    pf_free(context, score);
    pf_free(context, of_distinct);
    return status;
}

/* ---- rewards */

/* The completion of sequence i ends with eos or a stop token. */
static bool ends(const pf_sampled *s, const prefopt_sequences *in, int64_t i)
{
    int64_t n = pf_sequence_len(in, i);
    if (n == in->prompt_len[i])
        return false;
    int32_t last = pf_sequence_tokens(in, i)[n - 1];
    bool stopped = last == s->eos;
    for (int64_t k = 0; k < s->sampler.n_stop && !stopped; k++)
        stopped = last == s->stop[k];
    return stopped;
}

/* By the round's own moments, or those of all rounds so far. */
static void scale(const pf_sampled *s, const pf_moments *before, int64_t n, double *reward,
                  pf_moments *after)
{
    pf_moments round = {0};
    *after = *before;
    for (int64_t i = 0; i < n; i++) {
        pf_moments_add(&round, reward[i]);
        pf_moments_add(after, reward[i]);
    }
    const prefopt_round_options *o = &s->rounds;
    const pf_moments *by = o->reward_scale == PREFOPT_REWARD_RUNNING ? after : &round;
    double sd = pf_moments_sd(by);
    if (o->reward_scale != PREFOPT_REWARD_AS_IS)
        for (int64_t i = 0; i < n; i++)
            reward[i] = sd > 0 ? (reward[i] - by->mean) / sd : 0;
    if (o->reward_clip > 0)
        for (int64_t i = 0; i < n; i++)
            reward[i] = fmax(-o->reward_clip, fmin(reward[i], o->reward_clip));
}

int32_t pf_sampled_rewards(const pf_sampled *s, const pf_moments *before, prefopt_dataset *samples,
                           pf_round_facts *facts, pf_moments *after)
{
    prefopt_context *context = s->draws.context;
    prefopt_sequences in = {.struct_size = sizeof in};
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_sequences(samples, &in));
    PF_TRY(prefopt_dataset_columns(samples, &columns));
    double *reward = pf_alloc(context, in.n, sizeof *reward);
    if (reward == NULL)
        return PREFOPT_ERR_MEMORY;
    pf_moments scores = {0};
    int64_t ended = 0;
    for (int64_t i = 0; i < in.n; i++) {
        bool end = s->can_end && ends(s, &in, i);
        ended += end;
        pf_moments_add(&scores, columns.score[i]);
        reward[i] = columns.score[i] - (end ? 0 : s->rounds.missing_end_penalty);
    }
    scale(s, before, in.n, reward, after);
    facts->score_mean = scores.mean;
    facts->score_sd = pf_moments_sd(&scores);
    facts->ended = s->can_end ? (double)ended / (double)in.n : NAN;
    facts->reward = 0;
    for (int64_t i = 0; i < in.n; i++)
        facts->reward += reward[i] / (double)in.n;
    int32_t status = prefopt_dataset_set_column(samples, PREFOPT_COLUMN_SCORE, reward);
    pf_free(context, reward);
    return status;
}

/* From the scores of one prompt's completions to pairs. */
#include "math/pf_math.h"
#include "online/pf_online.h"

typedef struct {
    const prefopt_ranker_options *options;
    const double *score;
    pf_pair_fn *made;
    void *payload;
    prefopt_rank_counts *counts;
    int64_t n_made;
} maker;

/* Applies tie rule, floor and label to completions a and b, in whichever order. */
static int32_t consider(maker *m, int64_t a, int64_t b)
{
    const prefopt_ranker_options *o = m->options;
    bool a_first = m->score[a] > m->score[b] || (m->score[a] == m->score[b] && a < b);
    pf_pair pair = {a_first ? a : b, a_first ? b : a, 1};
    bool tie = m->score[a] == m->score[b];
    double difference = m->score[pair.chosen] - m->score[pair.rejected];
    if (tie && o->tie_rule == PREFOPT_TIES_DROP) {
        m->counts->ties++;
        return PREFOPT_OK;
    }
    if (difference < o->margin_floor) {
        m->counts->below_floor++;
        return PREFOPT_OK;
    }
    if (o->soft_labels)
        pair.label = pf_sigmoid(o->soft_scale * difference);
    else if (tie && o->tie_rule == PREFOPT_TIES_HALF)
        pair.label = 0.5;
    PF_TRY(m->made(m->payload, &pair));
    m->n_made++;
    m->counts->pairs++;
    return PREFOPT_OK;
}

/* The best: the earliest of the highest. The worst: the latest of the lowest, so that best and
 * worst differ whenever there are two. */
static int64_t best_of(int64_t m, const double *score)
{
    int64_t best = 0;
    for (int64_t i = 1; i < m; i++)
        if (score[i] > score[best])
            best = i;
    return best;
}

static int64_t worst_of(int64_t m, const double *score)
{
    int64_t worst = 0;
    for (int64_t i = 1; i < m; i++)
        if (score[i] <= score[worst])
            worst = i;
    return worst;
}

/* Of all but the best, the earliest of those nearest to mean - 2 sd (sd with divisor m). */
static int64_t near_mean_2sd(int64_t m, const double *score, int64_t best)
{
    /* In units of the largest |score|, so that squares neither over- nor underflow. */
    double unit = 0;
    for (int64_t i = 0; i < m; i++)
        unit = fmax(unit, fabs(score[i]));
    if (unit == 0)
        unit = 1;
    pf_sum sum = {0, 0}, squares = {0, 0};
    for (int64_t i = 0; i < m; i++)
        pf_sum_add(&sum, score[i] / unit);
    double mean = pf_sum_value(&sum) / (double)m;
    for (int64_t i = 0; i < m; i++) {
        double d = score[i] / unit - mean;
        pf_sum_add(&squares, d * d);
    }
    double target = mean - 2 * sqrt(pf_sum_value(&squares) / (double)m);
    int64_t nearest = best == 0 ? 1 : 0;
    for (int64_t i = nearest + 1; i < m; i++)
        if (i != best && fabs(score[i] / unit - target) < fabs(score[nearest] / unit - target))
            nearest = i;
    return nearest;
}

/* Another index than `than`, from 0 .. m-1. */
static int64_t random_other(const prefopt_ranker_options *o, int64_t row, uint64_t index, int64_t m,
                            int64_t than)
{
    /* The first part keeps these draws apart from a sampler's under the same seed. */
    uint64_t stream = pf_stream(UINT64_C(0x72616e6b6572), (uint64_t)row);
    int64_t other = pf_uniform_int(o->seed, stream, index, m - 1);
    return other < than ? other : other + 1;
}

static int32_t apply_rule(maker *mk, int64_t row, int64_t m)
{
    int64_t best = best_of(m, mk->score);
    switch (mk->options->rule) {
    case PREFOPT_PAIR_BEST_AGAINST_EACH:
        for (int64_t i = 0; i < m; i++)
            if (i != best)
                PF_TRY(consider(mk, best, i));
        return PREFOPT_OK;
    case PREFOPT_PAIR_ALL:
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = i + 1; j < m; j++)
                PF_TRY(consider(mk, i, j));
        return PREFOPT_OK;
    case PREFOPT_PAIR_BEST_MEAN_2SD:
        return consider(mk, best, near_mean_2sd(m, mk->score, best));
    case PREFOPT_PAIR_RANDOM: {
        /* One of m + 1 other than the last is one of m. */
        int64_t a = random_other(mk->options, row, 0, m + 1, m);
        return consider(mk, a, random_other(mk->options, row, 1, m, a));
    }
    case PREFOPT_PAIR_BEST_RANDOM:
        return consider(mk, best, random_other(mk->options, row, 0, m, best));
    default:
        return consider(mk, best, worst_of(m, mk->score));
    }
}

int32_t pf_make_pairs(const prefopt_ranker_options *options, int64_t row, int64_t m,
                      const double *score, pf_pair_fn *made, void *payload,
                      prefopt_rank_counts *counts)
{
    maker mk = {options, score, made, payload, counts, 0};
    if (m >= 2)
        PF_TRY(apply_rule(&mk, row, m));
    if (mk.n_made == 0)
        counts->empty_rows++;
    return PREFOPT_OK;
}

/* The Gaussian prior on scores around each prompt's mean: it looks at scores alone, so that every
 * class of rewards can carry the same one, whatever its parameters are. */
#include <math.h>

#include "train/pf_train.h"

int32_t pf_score_prior(const prefopt_trainer *trainer, double scale, const double *ref,
                       double *work, double *loss)
{
    const pf_rows *rows = trainer->rows;
    double strength = trainer->options.score_ridge / trainer->total_weight, sum = 0;
    double *mean = work, *count = work + rows->n_groups;
    memset(work, 0, 2 * (size_t)rows->n_groups * sizeof *work);
    for (int64_t i = 0; i < rows->n_distinct; i++) {
        if (ref != NULL && isinf(ref[i]))
            continue;
        double score = scale * (trainer->score[i] - (ref != NULL ? ref[i] : 0));
        if (!isfinite(score)) {
            char text[PF_SEQUENCE_TEXT];
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "%s: the score is %g, score_ridge expects a finite one",
                           pf_rows_text(rows, i, text), score);
        }
        mean[rows->group[i]] += score;
        count[rows->group[i]] += 1;
    }
    for (int64_t g = 0; g < rows->n_groups; g++)
        mean[g] /= count[g] > 0 ? count[g] : 1;
    for (int64_t i = 0; i < rows->n_distinct; i++) {
        if (ref != NULL && isinf(ref[i]))
            continue;
        double score = scale * (trainer->score[i] - (ref != NULL ? ref[i] : 0));
        double d = score - mean[rows->group[i]];
        sum += d * d;
        trainer->grad_score[i] += strength * scale * d;
    }
    *loss += 0.5 * strength * sum;
    return PREFOPT_OK;
}

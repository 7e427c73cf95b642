/* Statistics of parts into those of the whole batch. */
#include <math.h>

#include "train/pf_train.h"

/* By share of the batch's weight, or by the weight that was counted (of rankings: neighbours). */
static const struct {
    size_t offset;
    bool by_share;
} fields[PF_TALLY_FIELDS] = {
    {offsetof(prefopt_progress, loss), true},
    {offsetof(prefopt_progress, kl), true},
    {offsetof(prefopt_progress, reward), true},
    {offsetof(prefopt_progress, clip_fraction), true},
    {offsetof(prefopt_progress, accuracy), false},
    {offsetof(prefopt_progress, margin), false},
    {offsetof(prefopt_progress, chosen_score), false},
    {offsetof(prefopt_progress, rejected_score), false},
    {offsetof(prefopt_progress, chosen_logp), false},
    {offsetof(prefopt_progress, rejected_logp), false},
};

void pf_tally_add(pf_tally *tally, const prefopt_trainer *trainer, double share,
                  const prefopt_progress *part)
{
    for (int i = 0; i < PF_TALLY_FIELDS; i++) {
        double value, weight = fields[i].by_share ? share : trainer->counted;
        memcpy(&value, (const char *)part + fields[i].offset, sizeof value);
        if (isnan(value) || !(weight > 0))
            continue; /* the objective (or the part) has no such number */
        tally->sum[i] += weight * value;
        tally->parts[i]++;
    }
    tally->counted += trainer->counted;
    tally->extra_grad += share * trainer->extra_grad;
}

void pf_tally_write(const pf_tally *tally, prefopt_trainer *trainer, prefopt_progress *stats)
{
    for (int i = 0; i < PF_TALLY_FIELDS; i++) {
        double value = fields[i].by_share ? tally->sum[i] : tally->sum[i] / tally->counted;
        if (tally->parts[i] > 0)
            memcpy((char *)stats + fields[i].offset, &value, sizeof value);
    }
    if (tally->parts[0] == 0)
        stats->loss = 0; /* no row has weight */
    trainer->counted = tally->counted;
    trainer->extra_grad = tally->extra_grad;
}

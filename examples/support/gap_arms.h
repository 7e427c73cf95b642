/* The arms of the gap study: ways from the same SFT policy and the same pairs to a policy. */
#ifndef EXAMPLE_GAP_ARMS_H
#define EXAMPLE_GAP_ARMS_H

#include "gap_models.h"

typedef enum {
    ARM_OFFLINE,    /* DPO on the pairs */
    ARM_TWICE,      /* on twice as many */
    ARM_BY_REWARD,  /* on the pairs, ordered by the reward model instead of the labeller */
    ARM_BY_TRUTH,   /* on the pairs, ordered by the true reward; pairs that are equal dropped */
    ARM_ONE_TOP,    /* online, one round: top against bottom */
    ARM_ONE_RANDOM, /* best against another at random */
    ARM_ONE_2SD,    /* best against mean - 2 sd */
    ARM_FRESH_TOP,  /* online, fresh samples in every step */
    ARM_FRESH_RANDOM,
    ARM_FRESH_2SD,
    ARM_ONE_FROM_DPO, /* best against random in one round, sampled and started from offline DPO */
    ARM_FRESH_FROM_DPO,
    ARM_GRADIENT, /* leave-one-out policy gradient on the reward model */
    ARM_DISTIL,   /* maximum likelihood on the reward model's best of n */
    N_GAP_ARMS
} gap_arm;

extern const char *const gap_arm_key[N_GAP_ARMS];   /* in results and on the command line */
extern const char *const gap_arm_label[N_GAP_ARMS]; /* in tables and pictures */

/* Trains one arm, measuring after each of the n_checkpoints steps (the last is the setting's
 * number), by samples and at the end exactly; puts KEY.sampled@STEP, KEY.hit@STEP and so on. whole:
 * with samples, displacement and coverage. ARM_OFFLINE also sets m->offline, which the arms from
 * DPO need. */
void gap_arm_run(gap_models *m, gap_arm arm, const gap_setting *setting, int n_checkpoints,
                 const int64_t *checkpoint, int whole, gap_record *out);

/* Best-of-n curves and held-out likelihood of the judges: truth, reward model, offline DPO's
 * implicit reward and the local reward, these two trained here to their best on validation. */
void gap_judges_run(gap_models *m, const gap_setting *setting, gap_record *out);

#endif

/* The studies behind online_vs_offline: each returns 0 when its main finding came out. */
#ifndef EXAMPLE_STUDIES_H
#define EXAMPLE_STUDIES_H

#include "gap_arms.h"

/* In a world that can be enumerated. */
int exact_study(const char *picture);

/* With language models. */
typedef struct {
    gap_kind kind;
    gap_sizes sizes;
    gap_setting setting;   /* of every arm, unless tuned says otherwise */
    const char *results;   /* file to append to and to go on from; NULL: none */
    const char *tuned;     /* results of a grid run, whose best settings are taken; NULL: none */
    const char *picture;   /* NULL: none */
    int64_t grid_steps[3]; /* numbers of steps that a grid looks at, rising */
    int n_seeds, first_seed, threads;
    int grid;      /* run the tuning grid instead of the study */
    int curve;     /* also run the numbers of pairs */
    int plan;      /* only say what would be run and how long it takes */
    uint64_t arms; /* bit i: arm i */
} gap_study;
int gap_study_run(const gap_study *study);

/* ---- the parts of gap_study.c and gap_report.c that see each other */
typedef enum { JOB_MAIN, JOB_TUNED, JOB_PAIRS, JOB_GRID } gap_job_kind;
typedef struct {
    gap_job_kind kind;
    int seed, done;
    int64_t n_pairs;
    gap_setting setting[N_GAP_ARMS];
    char name[128]; /* as in the results */
} gap_job;

enum { GAP_RATES = 3, GAP_BETAS = 3, GAP_STEPS = 3, GAP_PAIR_SIZES = 6 };
extern const double gap_rates[GAP_RATES], gap_betas[GAP_BETAS];
extern const int64_t gap_pair_sizes[GAP_PAIR_SIZES];

/* The best setting of each arm in the records of a grid, by mean success on validation prompts over
 * its seeds; prints the grid. 0 when there is one for every arm wanted. */
int gap_best_settings(const gap_study *study, const gap_results *grid, gap_setting *setting);
/* Values of a key over the study's jobs of a kind (n_pairs 0: any number of pairs). */
int gap_over_seeds(const gap_results *r, const gap_job *jobs, int n_jobs, gap_job_kind kind,
                   int64_t n_pairs, const char *key, double *value);
void gap_report(const gap_study *study, const gap_results *r, const gap_job *jobs, int n_jobs);
void gap_draw(const gap_study *study, const gap_results *r, const gap_job *jobs, int n_jobs);

#endif

/* What two_roads reads, prints, writes and draws. */
#ifndef EXAMPLE_ROADS_H
#define EXAMPLE_ROADS_H

#include <prefopt/prefopt.h>

#include "table.h"

typedef struct {
    const table *t;
    double beta;
    prefopt_strengths_summary summary;
    prefopt_coverage coverage;
    prefopt_fragility fragility; /* of comparisons; struct_size alone for rankings */
    prefopt_dataset *uncovered;  /* completions that no comparison holds: items as tokens */
    double *strength, *std_error, *log_ref, *log_rlhf, *log_dpo; /* n_items each */
} roads;

void roads_allocate(roads *r);
void roads_free(roads *r);
void roads_print(const roads *r);
/* Written beside the file and renamed, so that it is whole or absent. */
void roads_write_json(const roads *r, const char *path);
void roads_draw(const roads *r, const char *title, const char *path);

/* The comparisons or rankings as rows of a dataset: item i is the completion {i} of an empty
 * prompt. */
prefopt_dataset *table_dataset(prefopt_context *context, const table *t);

/* Number of the item with that name, -1 for NULL; ends the program when there is none. */
int64_t item_named(const table *t, const char *name);
int32_t tie_model_named(const char *name);

#endif

/* Reading the options and the groups of the completion-level policy gradient. */
#ifndef PF_PG_GROUPS_H
#define PF_PG_GROUPS_H

#include "loss/pf_pg.h"

/* NULL: defaults. Every option is in its range then; *rule holds those of one element. */
int32_t pf_pg_read_options(const char *call, const prefopt_pg_options *options,
                           prefopt_pg_options *own, pf_pg_rule *rule);

/* Sizes in range; *total = n_groups * group_size. The arrays are not looked at. */
int32_t pf_pg_read_groups(const char *call, const prefopt_group_scores *in,
                          prefopt_group_scores *own, int64_t *total);

#endif

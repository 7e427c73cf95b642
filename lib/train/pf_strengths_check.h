/* Internal: the checks of prefopt_strengths_fit's input. */
#ifndef PF_STRENGTHS_CHECK_H
#define PF_STRENGTHS_CHECK_H

#include "train/pf_strengths.h"

int32_t pf_strengths_check_options(const prefopt_strengths_options *options,
                                   const prefopt_strengths_options *defaults, int64_t n_items,
                                   bool rankings);
int32_t pf_strengths_check_comparisons(const prefopt_comparisons *data, int32_t tie_model);
int32_t pf_strengths_check_rankings(prefopt_context *context, const prefopt_rankings *data);

#endif

/* Checks of the arrays that objectives are given. */
#ifndef PF_ARRAYS_H
#define PF_ARRAYS_H

#include "base/pf_base.h"

/* x[first .. last - 1] are finite; else NUMERIC "call: name[i] is ...". NULL x is not looked at. */
int32_t pf_check_finite(const char *call, const char *name, int64_t first, int64_t last,
                        const double *x);

/* x[first .. last - 1] are finite or -INFINITY. */
int32_t pf_check_logprobs(const char *call, const char *name, int64_t first, int64_t last,
                          const double *x);

#endif

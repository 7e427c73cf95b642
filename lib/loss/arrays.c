/* Checks of the arrays that objectives are given. */
#include <math.h>

#include "loss/pf_arrays.h"

int32_t pf_check_finite(const char *call, const char *name, int64_t first, int64_t last,
                        const double *x)
{
    for (int64_t i = first; x != NULL && i < last; i++)
        if (!isfinite(x[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "%s: %s[%lld] is %g, expected a finite number",
                           call, name, (long long)i, x[i]);
    return PREFOPT_OK;
}

int32_t pf_check_logprobs(const char *call, const char *name, int64_t first, int64_t last,
                          const double *x)
{
    for (int64_t i = first; x != NULL && i < last; i++)
        if (!(x[i] < INFINITY))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "%s: %s[%lld] is %g, expected a finite log-probability or -INFINITY",
                           call, name, (long long)i, x[i]);
    return PREFOPT_OK;
}

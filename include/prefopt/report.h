/* prefopt/report.h: what the fitted models say: coverage, displacement, equivalence, gaps. */
#ifndef PREFOPT_REPORT_H
#define PREFOPT_REPORT_H


#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif
#endif

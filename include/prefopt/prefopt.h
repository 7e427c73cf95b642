/* prefopt/prefopt.h: the whole public interface of libprefopt. */
#ifndef PREFOPT_PREFOPT_H
#define PREFOPT_PREFOPT_H

#include "base.h"
#include "math.h"
#include "loss.h"
#include "data.h"
#include "tokenizer.h"
#include "text.h"
#include "model.h"
#include "transformer.h"
#include "online.h"
#include "strengths.h"
#include "train.h"
#include "report.h"

#endif

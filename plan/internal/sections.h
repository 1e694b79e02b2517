// The sections that the task file and the plan have in common, each described
// once (fields.h), and the rules for the words in them.
#pragma once

#include <string>
#include <string_view>

#include "plan/internal/fields.h"
#include "plan/plan.h"
#include "plan/task.h"

namespace selvage::plan::internal {

void VisitTrain(Fields& f, TrainSpec& s);
void VisitPersonalize(Fields& f, PersonalizeSpec& s);
void VisitUpdate(Fields& f, UpdateSpec& s);
// `no_secure_sum`: why this task cannot have secure aggregation; "": it may.
void VisitPrivacy(Fields& f, PrivacySpec& s,
                  const std::string& no_secure_sum = "");
// The whole section `conditions`, which is not written while nothing is wanted.
void VisitConditions(Fields& f, ConditionsSpec& s);
void VisitData(Fields& f, DataSpec& s);
// The whole section `contribution`, which is not written for a plain one.
void VisitContribution(Fields& f, ContributionSpec& s);

// max | min
void VisitMode(Fields& f, bool& maximize);

// What holds between the fields of a section.
Status CheckTrain(const TrainSpec& s);
Status CheckPersonalize(const PersonalizeSpec& s);
// ... and between what a strategy wants of devices, how they train and what
// they send.
Status CheckContribution(const ContributionSpec& contribution,
                         const TrainSpec& train, const UpdateSpec& update);

std::string NameProblem(std::string_view text);      // tasks, populations
std::string WordProblem(std::string_view text);      // [a-z0-9_]{1,64}
std::string DigestProblem(std::string_view text);    // 64 hex digits
std::string FilePathProblem(std::string_view text);  // 1..1024 printable

// Reads a whole document and requires its bytes to be what `write` makes of it.
Status RequireCanonical(std::string_view json, const std::string& canonical,
                        std::string_view what);

}  // namespace selvage::plan::internal

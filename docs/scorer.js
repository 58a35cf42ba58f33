// Search: a lesson explains what an entry of the reference only lists, so lessons come first.
var Scorer = {
  score: ([page, , , , score]) => page.startsWith("api/") ? score - 30 : page.startsWith("engine/") ? score - 5 : score,
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};

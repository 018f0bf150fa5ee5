"""Several trained models as one teacher: the mean of what they predict.

Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles" (NeurIPS 2017).
"""

import math

import torch
from torch import nn

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """What a teacher is asked for, answered by the mean of the members' distributions over items.

    Args:
        members: trained :class:`recbole_farzi.student.Student` objects of one model class on one dataset.
    """

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.traits, self.length, self.vocabulary = members[0].traits, members[0].length, members[0].vocabulary
        self.last_only = members[0].last_only

    @property
    def device(self):
        """Where the members are."""
        return self.members[0].device

    def scores(self, item_seq):
        """Log of the mean probability of every item after every event; see
        :meth:`recbole_farzi.student.Student.scores`."""
        return self._mean(lambda member: member.scores(item_seq))

    def row_scores(self, item_seq, lengths, users=None):
        """The same after given histories; see
        :meth:`recbole_farzi.student.Student.row_scores`."""
        return self._mean(lambda member: member.row_scores(item_seq, lengths, users))

    def predictions(self, windows):
        """Mean distributions of the next event; see :meth:`recbole_farzi.student.Student.predictions`."""
        if not self.traits.ranks:
            return None
        return sum(member.predictions(windows) for member in self.members) / len(self.members)

    def similarities(self, items):
        """Mean similarity of all items to given ones; see :meth:`recbole_farzi.student.Student.similarities`."""
        return sum(member.similarities(items) for member in self.members) / len(self.members)

    def _mean(self, scores):
        """Shape [..., V]: log probabilities, minus infinity for the padding."""
        total = None
        for member in self.members:
            logs = torch.log_softmax(scores(member)[..., 1 : self.vocabulary], dim=-1)
            total = logs if total is None else torch.logaddexp(total, logs)
        return nn.functional.pad(total - math.log(len(self.members)), (1, 0), value=-math.inf)

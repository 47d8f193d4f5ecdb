def grow(self) -> list[Row]:
        """Make room for one more token of each running sequence; the newest gives way.  [5.8 · ★★★ · 30 min]

        A decode step writes the key of the newest token, so each sequence needs pages for all its tokens.  They are served
        in the order of `running`.  While one can't get its pages, the last of `running` is preempted, even if that is the
        sequence itself.  So the oldest always goes on, and everyone gets to be the oldest.  One that has more tokens than
        `longest` can't be helped by anyone: it is finished with "out_of_pages" and listed in `outgrown`.

        Returns:
            A row for the newest token of each sequence that is still running.
        """
        # Who is beyond help goes first: the pages may spare somebody a preemption, and must not be waited for in the queue.
        for sequence in [s for s in self.running if len(s) > self.longest]:
            self.finish(sequence, "out_of_pages")
            self.outgrown.append(sequence)

        served = 0
        while served < len(self.running):
            sequence = self.running[served]
            if self.page_table.reserve(sequence.slot, len(sequence)):
                served += 1
            else:
                self.preempt(self.running[-1])  # perhaps `sequence` itself: then nobody is left to serve
        return [Row(sequence, start=len(sequence) - 1, n_tokens=1) for sequence in self.running]

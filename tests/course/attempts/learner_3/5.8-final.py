    def grow(self) -> list[Row]:
        """Make room for one more token of each running sequence; the newest gives way.  [5.8 · ★★★ · 30 min]

        A decode step writes the key of the newest token, so each sequence needs pages for all its tokens.  They are served
        in the order of `running`.  While one can't get its pages, the last of `running` is preempted, even if that is the
        sequence itself.  So the oldest always goes on, and everyone gets to be the oldest.  One that has more tokens than
        `longest` can't be helped by anyone: it is finished with "out_of_pages" and listed in `outgrown`.

        Returns:
            A row for the newest token of each sequence that is still running.
        """
        for sequence in list(self.running):
            if len(sequence) > self.longest:
                self.finish(sequence, "out_of_pages")
                self.outgrown.append(sequence)
        for sequence in list(self.running):
            while sequence.status is Status.RUNNING and not self.page_table.reserve(sequence.slot, len(sequence)):
                self.preempt(self.running[-1])
        return [Row(sequence, len(sequence) - 1, 1) for sequence in self.running]

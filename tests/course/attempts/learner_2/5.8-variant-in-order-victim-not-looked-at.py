    def grow(self) -> list[Row]:
        """Make room for one more token of each running sequence; the newest gives way.  [5.8 · ★★★ · 30 min]

        A decode step writes the key of the newest token, so each sequence needs pages for all its tokens.  They are served
        in the order of `running`.  While one can't get its pages, the last of `running` is preempted, even if that is the
        sequence itself.  So the oldest always goes on, and everyone gets to be the oldest.  One that has more tokens than
        `longest` can't be helped by anyone: it is finished with "out_of_pages" and listed in `outgrown`.

        Returns:
            A row for the newest token of each sequence that is still running.
        """
        for s in list(self.running):
            if s.status is not Status.RUNNING:
                continue
            if len(s) > self.longest:
                self.finish(s, "out_of_pages")
                self.outgrown.append(s)
                continue
            while s.status is Status.RUNNING and not self.page_table.reserve(s.slot, len(s)):
                self.preempt(self.running[-1])
        return [Row(s, len(s) - 1, 1) for s in self.running]
